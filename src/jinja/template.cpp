// SPDX-License-Identifier: Apache-2.0
#include "jinja/template.h"

#include "io/utf8.h"
#include "jinja/node.h"
#include "jinja/parser.h"
#include "jinja/run.h"

namespace memlayers::jinja {
namespace {

constexpr std::size_t kMostSource = 1 << 20;

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  ::localtime_r(&now, &parts);
  return parts;
}

}  // namespace

struct Template::State {
  std::string name;
  Body body;
};

Template::Template(std::string name, std::string_view source) {
  if (source.size() > kMostSource) {
    throw Error(name + ": expected a template of at most " + std::to_string(kMostSource) +
                " bytes, got " + std::to_string(source.size()));
  }
  io::check_utf8(source, name);
  Body body = parse_template(name, source);
  state_ = std::make_unique<State>(State{std::move(name), std::move(body)});
}
Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

Text Template::render(const std::vector<Variable>& variables, const RenderOptions& options) const {
  Run run(state_->name, options.limits, options.given_bytes);
  run.now = options.now ? options.now : local_time;
  run.scope = std::make_shared<Scope>();
  for (const Variable& variable : variables) run.scope->set(variable.name, variable.value);
  const Inside inside(run);
  Text result;
  run.out = &result;
  execute(state_->body, run);
  return result;
}

}  // namespace memlayers::jinja
