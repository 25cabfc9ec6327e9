// SPDX-License-Identifier: Apache-2.0
// One rendering of a template.
#pragma once

#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/limits.h"
#include "jinja/text.h"
#include "jinja/value.h"

namespace memlayers::jinja {

// The names of a block. Names are the template's own and outlive it.
class Scope {
 public:
  explicit Scope(std::shared_ptr<Scope> outer = nullptr) : outer_(std::move(outer)) {}
  const Value* find(std::string_view name) const;  // here or further out
  void set(std::string_view name, Value value);
  void clear() { values_.clear(); }

 private:
  std::shared_ptr<Scope> outer_;
  std::vector<std::pair<std::string_view, Value>> values_;
};

class Run {
 public:
  Run(const std::string& template_name, const Limits& limits, std::int64_t given_bytes)
      : name(template_name), budget(limits, given_bytes) {}
  ~Run();  // of scopes and macros, which hold each other
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // For calls of what the template wrote: appends to what is being rendered.
  void write(const Text& text) {
    budget.spend_text(text.size(), out->size());
    out->append(text);
  }

  const std::string& name;  // of the template, for errors
  Budget budget;
  std::shared_ptr<Scope> scope;
  Text* out = nullptr;
  std::function<std::tm()> now;
  std::vector<std::shared_ptr<Scope>> kept_scopes;  // that a macro remembers
  std::vector<std::shared_ptr<Namespace>> namespaces;
  Items kept_loops;  // whose changed() was called
};

// While it lives the run writes to another text.
class Capture {
 public:
  explicit Capture(Run& run) : run_(run), before_(run.out) { run.out = &text_; }
  ~Capture() { run_.out = before_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  Text take() { return std::move(text_); }

 private:
  Run& run_;
  Text* before_;
  Text text_;
};

// While it lives names are set in a scope inside `outer`.
class Inside {
 public:
  Inside(Run& run, std::shared_ptr<Scope> outer) : run_(run), before_(run.scope) {
    run.scope = std::make_shared<Scope>(std::move(outer));
  }
  explicit Inside(Run& run) : Inside(run, run.scope) {}
  ~Inside() { run_.scope = std::move(before_); }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  Run& run_;
  std::shared_ptr<Scope> before_;
};

}  // namespace memlayers::jinja
