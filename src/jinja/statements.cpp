// SPDX-License-Identifier: Apache-2.0
#include "jinja/statements.h"

#include "io/shown.h"
#include "jinja/filters.h"
#include "jinja/lexer.h"
#include "jinja/loop.h"
#include "jinja/macro.h"
#include "jinja/operators.h"
#include "jinja/template.h"

namespace memlayers::jinja {
namespace {

class Deeper {
 public:
  explicit Deeper(Run& run) : run_(run) { run.budget.enter(); }
  ~Deeper() { run_.budget.leave(); }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  Run& run_;
};

template <class Do>
auto guarded(Run& run, int line, const Do& act) {
  try {
    const Deeper deeper(run);
    run.budget.spend(1);
    return act();
  } catch (const Raised& raised) {
    throw TemplateRefusal(place_of(run.name, line), raised.what());
  } catch (const Problem& problem) {
    throw Error(place_of(run.name, line) + problem.what());
  }
}

Value filtered(Run& run, const Filters& filters, Text text) {
  Value value(std::move(text));
  for (const auto& filter : filters) value = filter->apply(run, value);
  return value;
}

}  // namespace

Value evaluate(const Expression& expression, Run& run) {
  return guarded(run, expression.line, [&] { return expression.value(run); });
}

Flow execute(const Statement& statement, Run& run) {
  return guarded(run, statement.line, [&] { return statement.act(run); });
}

Flow execute(const Body& body, Run& run) {
  for (const auto& statement : body) {
    if (const Flow flow = execute(*statement, run); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

void Target::check(Run& run) const {
  for (const Target& part : parts) part.check(run);
  if (member.empty()) return;
  const Value* found = run.scope->find(name);
  if (found == nullptr || found->space() == nullptr) {
    throw Problem("expected a namespace " + io::quote(name) + " to set a member of, got " +
                  std::string(found == nullptr ? "nothing" : found->kind()));
  }
}

void Target::assign(Run& run, const Value& value) const {
  if (!member.empty()) {
    check_member_name(member);
    run.scope->find(name)->space()->members.insert_or_assign(member, value);
    return;
  }
  if (!is_tuple) return run.scope->set(name, value);
  const Items items = items_of(run, value);
  if (items.size() != parts.size()) {
    throw Problem("expected " + std::to_string(parts.size()) + " values to unpack, got " +
                  std::to_string(items.size()));
  }
  for (std::size_t i = 0; i < parts.size(); ++i) parts[i].assign(run, items[i]);
}

Flow WriteText::act(Run& run) const {
  run.write(text);
  return Flow::kOn;
}

Flow Show::act(Run& run) const {
  run.write(str_of(run, evaluate(*shown, run)));
  return Flow::kOn;
}

Flow Set::act(Run& run) const {
  target.check(run);
  target.assign(run, evaluate(*assigned, run));
  return Flow::kOn;
}

Flow SetBlock::act(Run& run) const {
  Value value;
  {
    const Inside inside(run);
    Capture capture(run);
    if (const Flow flow = execute(body, run); flow != Flow::kOn) return flow;
    value = filtered(run, filters, capture.take());
  }
  target.check(run);
  target.assign(run, value);
  return Flow::kOn;
}

Flow FilterBlock::act(Run& run) const {
  const Inside inside(run);
  Value value;
  {
    Capture capture(run);
    if (const Flow flow = execute(body, run); flow != Flow::kOn) return flow;
    value = filtered(run, filters, capture.take());
  }
  run.write(str_of(run, value));
  return Flow::kOn;
}

Flow If::act(Run& run) const {
  for (const Branch& branch : branches) {
    if (branch.test == nullptr || is_true(evaluate(*branch.test, run))) {
      return execute(branch.body, run);
    }
  }
  return Flow::kOn;
}

Flow For::act(Run& run) const {
  Items all = items_of(run, evaluate(*items, run));
  if (test != nullptr) {
    const Inside inside(run);
    std::erase_if(all, [&](const Value& item) {
      target.assign(run, item);
      return !is_true(evaluate(*test, run));
    });
  }
  // As in Jinja, `else` is also for loops of which no round came to its end.
  bool has_ended_one = false;
  const auto loop = std::make_shared<LoopState>(std::move(all));
  while (loop->has_next()) {
    const Inside inside(run);
    run.scope->set("loop", Value(loop));
    target.assign(run, loop->next());
    const Flow flow = execute(body, run);
    has_ended_one = has_ended_one || flow == Flow::kOn;
    if (flow == Flow::kBreak) break;
  }
  if (has_ended_one) return Flow::kOn;
  const Inside inside(run);
  return execute(otherwise, run);
}

Flow With::act(Run& run) const {
  Items made;
  for (const auto& [target, expression] : values) made.push_back(evaluate(*expression, run));
  const Inside inside(run);
  for (std::size_t i = 0; i < made.size(); ++i) values[i].first.assign(run, made[i]);
  return execute(body, run);
}

Flow Group::act(Run& run) const {
  const Inside inside(run);
  return execute(body, run);
}

Flow DefineMacro::act(Run& run) const {
  run.scope->set(macro.name, make_macro(run, macro));
  return Flow::kOn;
}

Flow CallBlock::act(Run& run) const {
  const Value result = called->call(run, make_macro(run, caller));
  run.write(str_of(run, result));
  return Flow::kOn;
}

}  // namespace memlayers::jinja
