// SPDX-License-Identifier: Apache-2.0
#include "jinja/run.h"

#include <algorithm>

#include "jinja/loop.h"

namespace memlayers::jinja {

const Value* Scope::find(std::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->outer_.get()) {
    for (const auto& [known, value] : scope->values_) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

void Scope::set(std::string_view name, Value value) {
  const auto found =
      std::ranges::find(values_, name, [](const auto& entry) { return entry.first; });
  if (found == values_.end()) {
    values_.emplace_back(name, std::move(value));
  } else {
    found->second = std::move(value);
  }
}

Run::~Run() {
  // Each by itself, so that a chain of them takes no stack.
  for (const auto& space : namespaces) space->members.clear();
  for (const auto& kept : kept_scopes) kept->clear();
  for (const Value& loop : kept_loops) loop.loop()->forget();
}

}  // namespace memlayers::jinja
