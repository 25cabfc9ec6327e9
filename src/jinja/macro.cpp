// SPDX-License-Identifier: Apache-2.0
#include "jinja/macro.h"

#include <algorithm>

#include "io/shown.h"

namespace memlayers::jinja {
namespace {

class Macro : public Callable {
 public:
  Macro(const MacroBody& body, std::shared_ptr<Scope> scope)
      : body_(body), scope_(std::move(scope)) {}
  std::string_view kind() const override { return "a macro"; }

  Value call(Run& run, const Arguments& arguments) const override {
    const Inside inside(run, scope_);
    bind(run, arguments);
    Capture capture(run);
    execute(body_.body, run);
    return Value(capture.take());
  }

 private:
  [[noreturn]] void fail(const std::string& problem) const {
    throw Problem((body_.name.empty() ? "caller" : body_.name) + ": " + problem);
  }

  void bind(Run& run, const Arguments& arguments) const {
    const Signature& signature = body_.signature;
    const std::size_t count = signature.names.size();
    auto named = arguments.named;
    const auto take = [&](std::string_view name) -> std::optional<Value> {
      const auto found = std::ranges::find(named, name, [](const auto& argument) {
        return std::string_view(argument.first.bytes());
      });
      if (found == named.end()) return std::nullopt;
      std::optional<Value> value;
      value.emplace(std::move(found->second));
      named.erase(found);
      return value;
    };
    std::vector<std::optional<Value>> values(count);
    bool has_caller = false;
    for (std::size_t i = 0; i < count; ++i) {
      has_caller = has_caller || signature.names[i] == "caller";
      values[i] = i < arguments.positional.size() ? std::optional(arguments.positional[i])
                                                  : take(signature.names[i]);
    }
    if (signature.uses_caller && !has_caller) {
      run.scope->set("caller", take("caller").value_or(Value::undefined("no caller is defined")));
    }
    rest(run, arguments, named);
    const std::size_t first_default = count - signature.defaults.size();
    for (std::size_t i = 0; i < count; ++i) {
      if (!values[i] && i >= first_default) {
        values[i] = evaluate(*signature.defaults[i - first_default], run);
      }
      run.scope->set(signature.names[i],
                     values[i].value_or(Value::undefined(
                         "the argument " + io::quote(signature.names[i]) + " was not given")));
    }
  }

  // What no parameter takes.
  void rest(Run& run, const Arguments& arguments,
            const std::vector<std::pair<Text, Value>>& named) const {
    const Signature& signature = body_.signature;
    const std::size_t count = signature.names.size();
    if (signature.uses_kwargs) {
      Dict dict;
      for (const auto& [name, value] : named) dict.set(Value(name), value);
      run.scope->set("kwargs", make_dict(std::move(dict)));
    } else if (!named.empty()) {
      fail("unknown argument " + io::quote(named.front().first.bytes()));
    }
    if (signature.uses_varargs) {
      const std::size_t taken = std::min(count, arguments.positional.size());
      run.scope->set("varargs",
                     make_tuple({arguments.positional.begin() + static_cast<std::ptrdiff_t>(taken),
                                 arguments.positional.end()}));
    } else if (arguments.positional.size() > count) {
      fail("expected at most " + std::to_string(count) + " arguments, got " +
           std::to_string(arguments.positional.size()));
    }
  }

  const MacroBody& body_;
  const std::shared_ptr<Scope> scope_;
};

}  // namespace

Value make_macro(Run& run, const MacroBody& body) {
  run.budget.spend(8);
  if (run.kept_scopes.empty() || run.kept_scopes.back() != run.scope) {
    run.kept_scopes.push_back(run.scope);
  }
  return Value(std::shared_ptr<const Callable>(std::make_shared<Macro>(body, run.scope)));
}

}  // namespace memlayers::jinja
