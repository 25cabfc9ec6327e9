// SPDX-License-Identifier: Apache-2.0
#include "jinja/expression_parser.h"

#include <algorithm>
#include <optional>

#include "io/shown.h"

namespace memlayers::jinja {
namespace {

// Of brackets inside brackets, and of the tree.
constexpr int kMostLevels = 100, kMostDepth = 250;

int depth_of(const ExpressionPtr& part) { return part == nullptr ? 0 : part->depth; }
int depth_of(const std::vector<ExpressionPtr>& parts) {
  int most = 0;
  for (const auto& part : parts) most = std::max(most, depth_of(part));
  return most;
}
int depth_of(const CallArguments& arguments) { return arguments.depth(); }
template <class Other>
int depth_of(const Other&) {
  return 0;
}

}  // namespace

class ExpressionParser::Level {
 public:
  explicit Level(ExpressionParser& parser) : parser_(parser) {
    if (++parser_.level_ > kMostLevels) {
      parser_.tokens_.fail_at(
          parser_.tokens_.current().line,
          "expected expressions nested at most " + std::to_string(kMostLevels) + " deep, got more");
    }
  }
  ~Level() { --parser_.level_; }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

 private:
  ExpressionParser& parser_;
};

template <class Node, class... Parts>
ExpressionPtr ExpressionParser::make(int line, Parts&&... parts) {
  const int depth = 1 + std::max({0, depth_of(parts)...});
  if (depth > kMostDepth) {
    tokens_.fail_at(line, "expected expressions of at most " + std::to_string(kMostDepth) +
                              " parts inside each other, got more");
  }
  auto node = std::make_unique<Node>(std::forward<Parts>(parts)...);
  node->line = line;
  node->depth = depth;
  return node;
}

ExpressionPtr ExpressionParser::tuple_or_one(bool takes_condition, std::string_view ends,
                                             bool is_in_brackets) {
  const int line = tokens_.current().line;
  std::vector<ExpressionPtr> parts;
  bool is_tuple = false;
  const auto is_end = [&] {
    return tokens_.is_at(TokenKind::kExpressionEnd) || tokens_.is_at(TokenKind::kTagEnd) ||
           tokens_.current().is_operator(")") || (!ends.empty() && tokens_.current().is_name(ends));
  };
  while (!is_end()) {
    parts.push_back(takes_condition ? expression() : without_condition());
    if (!tokens_.skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !parts.empty()) return std::move(parts[0]);
  if (!is_tuple && !is_in_brackets) tokens_.fail("an expression");
  return make<NewSequence>(line, SequenceKind::kTuple, std::move(parts));
}

ExpressionPtr ExpressionParser::conditional() {
  const Level level(*this);
  int line = tokens_.current().line;
  ExpressionPtr value = either();
  while (tokens_.skip_name("if")) {
    ExpressionPtr test = either();
    ExpressionPtr otherwise = tokens_.skip_name("else") ? conditional() : nullptr;
    value = make<Conditional>(line, std::move(test), std::move(value), std::move(otherwise));
    line = tokens_.current().line;
  }
  return value;
}

ExpressionPtr ExpressionParser::either() {
  const int line = tokens_.current().line;
  ExpressionPtr left = both();
  while (tokens_.skip_name("or")) left = make<Either>(line, true, std::move(left), both());
  return left;
}

ExpressionPtr ExpressionParser::both() {
  const int line = tokens_.current().line;
  ExpressionPtr left = negation();
  while (tokens_.skip_name("and")) left = make<Either>(line, false, std::move(left), negation());
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  const Level level(*this);
  const int line = tokens_.current().line;
  if (tokens_.skip_name("not")) return make<Not>(line, negation());
  return comparison();
}

ExpressionPtr ExpressionParser::comparison() {
  const int line = tokens_.current().line;
  ExpressionPtr first = sum();
  std::vector<Comparison> how;
  std::vector<ExpressionPtr> rest;
  const auto next = [&]() -> std::optional<Comparison> {
    if (tokens_.skip_operator("==")) return Comparison::kEqual;
    if (tokens_.skip_operator("!=")) return Comparison::kUnequal;
    if (tokens_.skip_operator("<")) return Comparison::kLess;
    if (tokens_.skip_operator("<=")) return Comparison::kAtMost;
    if (tokens_.skip_operator(">")) return Comparison::kGreater;
    if (tokens_.skip_operator(">=")) return Comparison::kAtLeast;
    if (tokens_.skip_name("in")) return Comparison::kIn;
    if (tokens_.current().is_name("not") && tokens_.following().is_name("in")) {
      tokens_.take();
      tokens_.take();
      return Comparison::kNotIn;
    }
    return std::nullopt;
  };
  while (const auto comparison = next()) {
    how.push_back(*comparison);
    rest.push_back(sum());
  }
  if (how.empty()) return first;
  return make<Compare>(line, std::move(first), std::move(how), std::move(rest));
}

ExpressionPtr ExpressionParser::sum() {
  const int line = tokens_.current().line;
  ExpressionPtr left = concatenation();
  while (tokens_.current().is_operator("+") || tokens_.current().is_operator("-")) {
    const bool adds = tokens_.take().text == "+";
    left = make<Binary>(line, adds ? Arithmetic::kAdd : Arithmetic::kSubtract, std::move(left),
                        concatenation());
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  const int line = tokens_.current().line;
  std::vector<ExpressionPtr> parts;
  parts.push_back(product());
  while (tokens_.skip_operator("~")) parts.push_back(product());
  if (parts.size() == 1) return std::move(parts[0]);
  return make<Concat>(line, std::move(parts));
}

ExpressionPtr ExpressionParser::product() {
  const int line = tokens_.current().line;
  ExpressionPtr left = power();
  const auto next = [&]() -> std::optional<Arithmetic> {
    if (tokens_.skip_operator("*")) return Arithmetic::kMultiply;
    if (tokens_.skip_operator("/")) return Arithmetic::kDivide;
    if (tokens_.skip_operator("//")) return Arithmetic::kFloorDivide;
    if (tokens_.skip_operator("%")) return Arithmetic::kModulo;
    return std::nullopt;
  };
  while (const auto operation = next()) {
    left = make<Binary>(line, *operation, std::move(left), power());
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  const int line = tokens_.current().line;
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): it loses sight of what is moved
  ExpressionPtr left = signed_one();
  while (tokens_.skip_operator("**")) {
    ExpressionPtr right = signed_one();
    left = make<Binary>(line, Arithmetic::kPower, std::move(left), std::move(right));
  }
  return left;
}

ExpressionPtr ExpressionParser::signed_one(bool takes_filters) {
  const Level level(*this);
  const int line = tokens_.current().line;
  ExpressionPtr value;
  if (tokens_.current().is_operator("-") || tokens_.current().is_operator("+")) {
    const bool is_negative = tokens_.take().text == "-";
    value = make<Sign>(line, is_negative, signed_one(false));
  } else {
    value = primary();
  }
  value = with_parts(std::move(value));
  return takes_filters ? with_filters(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::primary() {
  const Token& token = tokens_.current();
  switch (token.kind) {
    case TokenKind::kName:
      return name_or_constant();
    case TokenKind::kString: {
      const int line = token.line;
      std::string text;
      while (tokens_.is_at(TokenKind::kString)) text += tokens_.take().text;
      return make<Constant>(line, Value::own_text(text));
    }
    case TokenKind::kInteger:
      tokens_.take();
      return make<Constant>(token.line, Value(token.integer));
    case TokenKind::kReal:
      tokens_.take();
      return make<Constant>(token.line, Value(token.real));
    default:
      break;
  }
  if (token.is_operator("[")) return list();
  if (token.is_operator("{")) return dict();
  if (!tokens_.skip_operator("(")) tokens_.fail("an expression");
  ExpressionPtr inside = tuple_or_one(true, {}, true);
  tokens_.expect_operator(")");
  return inside;
}

ExpressionPtr ExpressionParser::name_or_constant() {
  const Token& token = tokens_.take();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return make<Constant>(token.line, Value(true));
  if (name == "false" || name == "False") return make<Constant>(token.line, Value(false));
  if (name == "none" || name == "None") return make<Constant>(token.line, Value(None{}));
  for (MacroUses* uses : macros) {
    uses->caller = uses->caller || name == "caller";
    uses->varargs = uses->varargs || name == "varargs";
    uses->kwargs = uses->kwargs || name == "kwargs";
  }
  return make<Name>(token.line, name);
}

ExpressionPtr ExpressionParser::list() {
  const int line = tokens_.take().line;
  std::vector<ExpressionPtr> items;
  while (!tokens_.current().is_operator("]")) {
    items.push_back(expression());
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator("]");
  return make<NewSequence>(line, SequenceKind::kList, std::move(items));
}

ExpressionPtr ExpressionParser::dict() {
  const int line = tokens_.take().line;
  std::vector<ExpressionPtr> keys, values;
  while (!tokens_.current().is_operator("}")) {
    keys.push_back(expression());
    tokens_.expect_operator(":");
    values.push_back(expression());
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator("}");
  return make<NewDict>(line, std::move(keys), std::move(values));
}

ExpressionPtr ExpressionParser::with_parts(ExpressionPtr object) {
  while (true) {
    const Token& token = tokens_.current();
    if (token.is_operator(".") || token.is_operator("[")) {
      object = part_of(std::move(object));
    } else if (token.is_operator("(")) {
      object = make<CallOf>(token.line, std::move(object), call_arguments());
    } else {
      return object;
    }
  }
}

ExpressionPtr ExpressionParser::with_filters(ExpressionPtr value) {
  while (true) {
    const Token& token = tokens_.current();
    if (tokens_.skip_operator("|")) {
      value = filter_of(std::move(value), token.line);
    } else if (token.is_name("is")) {
      value = test_of(std::move(value));
    } else if (token.is_operator("(")) {
      value = make<CallOf>(token.line, std::move(value), call_arguments());
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::part_of(ExpressionPtr object) {
  const Token& token = tokens_.take();
  if (token.text == "[") return element_of(std::move(object), token.line);
  const Token& part = tokens_.current();
  if (part.kind == TokenKind::kInteger) {
    tokens_.take();
    return make<ElementOf>(token.line, std::move(object),
                           make<Constant>(part.line, Value(part.integer)));
  }
  return make<AttributeOf>(token.line, std::move(object), tokens_.expect_name());
}

ExpressionPtr ExpressionParser::element_of(ExpressionPtr object, int line) {
  const auto ends = [&] {
    return tokens_.current().is_operator("]") || tokens_.current().is_operator(",") ||
           tokens_.current().is_operator(":");
  };
  ExpressionPtr first = ends() ? nullptr : expression();
  if (tokens_.skip_operator(":")) {
    ExpressionPtr stop = ends() ? nullptr : expression(), step;
    if (tokens_.skip_operator(":") && !ends()) step = expression();
    tokens_.expect_operator("]");
    return make<SliceOf>(line, std::move(object), std::move(first), std::move(stop),
                         std::move(step));
  }
  if (first == nullptr) tokens_.fail("an element or a slice");
  if (!tokens_.current().is_operator(",")) {
    tokens_.expect_operator("]");
    return make<ElementOf>(line, std::move(object), std::move(first));
  }
  std::vector<ExpressionPtr> keys;
  keys.push_back(std::move(first));
  while (tokens_.skip_operator(",") && !tokens_.current().is_operator("]")) {
    keys.push_back(expression());
  }
  tokens_.expect_operator("]");
  return make<ElementOf>(line, std::move(object),
                         make<NewSequence>(line, SequenceKind::kTuple, std::move(keys)));
}

CallArguments ExpressionParser::call_arguments() {
  CallArguments arguments;
  const int line = tokens_.current().line;
  tokens_.expect_operator("(");
  const auto check = [&](bool is_right) {
    if (!is_right) tokens_.fail_at(line, "expected arguments without names before the others");
  };
  while (!tokens_.current().is_operator(")")) {
    if (tokens_.skip_operator("*")) {
      check(arguments.list == nullptr && arguments.dict == nullptr);
      arguments.list = expression();
    } else if (tokens_.skip_operator("**")) {
      check(arguments.dict == nullptr);
      arguments.dict = expression();
    } else if (tokens_.is_at(TokenKind::kName) && tokens_.following().is_operator("=")) {
      check(arguments.dict == nullptr);
      std::string name = tokens_.take().text;
      tokens_.take();
      const bool is_known = std::ranges::any_of(
          arguments.named, [&](const auto& argument) { return argument.first == name; });
      if (is_known) tokens_.fail_at(line, "expected " + io::quote(name) + " once, got it twice");
      arguments.named.emplace_back(std::move(name), expression());
    } else {
      check(arguments.list == nullptr && arguments.dict == nullptr && arguments.named.empty());
      arguments.positional.push_back(expression());
    }
    if (!tokens_.skip_operator(",")) break;
  }
  tokens_.expect_operator(")");
  return arguments;
}

std::string ExpressionParser::dotted_name() {
  std::string name = tokens_.expect_name();
  while (tokens_.skip_operator(".")) name += "." + tokens_.expect_name();
  return name;
}

ExpressionPtr ExpressionParser::filter_of(ExpressionPtr value, int line) {
  std::string name = dotted_name();
  CallArguments arguments;
  if (tokens_.current().is_operator("(")) arguments = call_arguments();
  return make<FilterOf>(line, std::move(value), std::move(name), std::move(arguments));
}

std::vector<std::unique_ptr<const FilterOf>> ExpressionParser::filters(bool starts_inline) {
  std::vector<std::unique_ptr<const FilterOf>> chain;
  while (starts_inline || tokens_.skip_operator("|")) {
    starts_inline = false;
    const int line = tokens_.current().line;
    std::string name = dotted_name();
    CallArguments arguments;
    if (tokens_.current().is_operator("(")) arguments = call_arguments();
    auto filter = std::make_unique<FilterOf>(nullptr, std::move(name), std::move(arguments));
    filter->line = line;
    chain.push_back(std::move(filter));
  }
  return chain;
}

ExpressionPtr ExpressionParser::test_of(ExpressionPtr value) {
  const int line = tokens_.take().line;
  const bool is_negated = tokens_.skip_name("not");
  std::string name = dotted_name();
  CallArguments arguments;
  const bool has_argument = tokens_.is_at(TokenKind::kName) || tokens_.is_at(TokenKind::kString) ||
                            tokens_.is_at(TokenKind::kInteger) || tokens_.is_at(TokenKind::kReal) ||
                            tokens_.current().is_operator("[") ||
                            tokens_.current().is_operator("{");
  if (tokens_.current().is_operator("(")) {
    arguments = call_arguments();
  } else if (has_argument && !tokens_.is_one_of({"else", "or", "and"})) {
    if (tokens_.current().is_name("is")) tokens_.fail("one test");
    arguments.positional.push_back(with_parts(primary()));
  }
  ExpressionPtr test = make<TestOf>(line, std::move(value), std::move(name), std::move(arguments));
  return is_negated ? make<Not>(line, std::move(test)) : std::move(test);
}

Target ExpressionParser::one_target(bool takes_members) {
  const Level level(*this);
  Target target;
  if (tokens_.skip_operator("(")) {
    target = this->target(takes_members);
    tokens_.expect_operator(")");
    return target;
  }
  if (tokens_.is_one_of({"true", "false", "none", "True", "False", "None"})) {
    tokens_.fail("a name to set");
  }
  target.name = tokens_.expect_name();
  if (takes_members && tokens_.skip_operator(".")) target.member = tokens_.expect_name();
  return target;
}

Target ExpressionParser::target(bool takes_members, std::string_view ends) {
  Target first = one_target(takes_members);
  if (!tokens_.current().is_operator(",")) return first;
  Target all;
  all.is_tuple = true;
  all.parts.push_back(std::move(first));
  while (tokens_.skip_operator(",")) {
    const bool is_end = tokens_.current().is_operator(")") || tokens_.is_at(TokenKind::kTagEnd) ||
                        tokens_.current().is_operator("=") ||
                        (!ends.empty() && tokens_.current().is_name(ends));
    if (is_end) break;
    all.parts.push_back(one_target(takes_members));
  }
  return all;
}

}  // namespace memlayers::jinja
