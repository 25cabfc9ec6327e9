// SPDX-License-Identifier: Apache-2.0
#include "jinja/parser.h"

#include <algorithm>
#include <utility>

#include "io/shown.h"
#include "jinja/expression_parser.h"
#include "jinja/statements.h"

namespace memlayers::jinja {
namespace {

constexpr int kMostLevels = 100;  // of statements inside others
using Names = std::initializer_list<std::string_view>;

class Parser {
 public:
  Parser(const std::string& name, std::string_view source)
      : tokens_(name, source), expressions_(tokens_) {}

  Body whole() { return body({}); }

 private:
  template <class Node, class... Parts>
  static StatementPtr make(int line, Parts&&... parts) {
    auto node = std::make_unique<Node>(std::forward<Parts>(parts)...);
    node->line = line;
    return node;
  }

  // Up to a tag of one of these names, of which the "{%" is taken and the name is not.
  Body body(Names ends) {
    if (++level_ > kMostLevels) {
      tokens_.fail_at(tokens_.current().line, "expected statements nested at most " +
                                                  std::to_string(kMostLevels) + " deep, got more");
    }
    Body statements;
    while (!tokens_.is_at(TokenKind::kEnd)) {
      const Token& token = tokens_.take();
      if (token.kind == TokenKind::kText) {
        statements.push_back(make<WriteText>(token.line, token.text));
      } else if (token.kind == TokenKind::kExpression) {
        statements.push_back(make<Show>(token.line, expressions_.tuple_or_one(true)));
        tokens_.expect(TokenKind::kExpressionEnd, "}}");
      } else if (tokens_.is_one_of(ends)) {
        --level_;
        return statements;
      } else {
        statements.push_back(statement());
        tokens_.expect(TokenKind::kTagEnd, "%}");
      }
    }
    if (ends.size() > 0) tokens_.fail("\"{% " + std::string(*(ends.end() - 1)) + " %}\"");
    --level_;
    return statements;
  }

  // Behind a tag's own part: its body, and the name of the tag that ends it, which is taken.
  Body inner(Names ends) {
    tokens_.skip_operator(":");
    tokens_.expect(TokenKind::kTagEnd, "%}");
    return body(ends);
  }
  Body inner_to(std::string_view end) {
    Body statements = inner({end});
    tokens_.take();
    return statements;
  }

  StatementPtr statement() {
    const int line = tokens_.current().line;
    if (!tokens_.is_at(TokenKind::kName)) tokens_.fail("the name of a statement");
    if (tokens_.skip_name("set")) return set(line);
    if (tokens_.skip_name("if")) return choice(line);
    if (tokens_.skip_name("for")) return loop(line);
    if (tokens_.skip_name("macro")) return macro(line);
    if (tokens_.skip_name("call")) return call(line);
    if (tokens_.skip_name("filter")) {
      Filters filters = expressions_.filters(true);
      return make<FilterBlock>(line, std::move(filters), inner_to("endfilter"));
    }
    if (tokens_.skip_name("with")) return with(line);
    if (tokens_.skip_name("generation")) {
      const int loops = std::exchange(loops_, 0);
      auto group = make<Group>(line, inner_to("endgeneration"));
      loops_ = loops;
      return group;
    }
    if (tokens_.skip_name("print")) return print(line);
    if (tokens_.is_one_of({"break", "continue"})) {
      if (loops_ == 0) tokens_.fail("this only inside a loop");
      return make<Leave>(line, tokens_.take().text == "break" ? Flow::kBreak : Flow::kContinue);
    }
    tokens_.fail("a statement that chat templates have");
  }

  StatementPtr set(int line) {
    Target target = expressions_.target(true);
    if (tokens_.skip_operator("=")) {
      return make<Set>(line, std::move(target), expressions_.tuple_or_one(true));
    }
    Filters filters = expressions_.filters(false);
    return make<SetBlock>(line, std::move(target), std::move(filters), inner_to("endset"));
  }

  StatementPtr choice(int line) {
    std::vector<If::Branch> branches;
    while (true) {
      ExpressionPtr test = expressions_.tuple_or_one(false);
      branches.push_back({std::move(test), inner({"elif", "else", "endif"})});
      if (tokens_.skip_name("elif")) continue;
      if (tokens_.skip_name("else")) branches.push_back({nullptr, inner({"endif"})});
      tokens_.take();
      return make<If>(line, std::move(branches));
    }
  }

  StatementPtr loop(int line) {
    Target target = expressions_.target(false, "in");
    if (!tokens_.skip_name("in")) tokens_.fail("\"in\"");
    ExpressionPtr items = expressions_.tuple_or_one(false, "recursive");
    ExpressionPtr test = tokens_.skip_name("if") ? expressions_.expression() : nullptr;
    if (tokens_.current().is_name("recursive")) tokens_.fail("a loop that does not call itself");
    ++loops_;
    Body each = inner({"endfor", "else"}), none;
    --loops_;
    if (tokens_.skip_name("else")) none = inner({"endfor"});
    tokens_.take();
    return make<For>(line, std::move(target), std::move(items), std::move(test), std::move(each),
                     std::move(none));
  }

  Signature signature() {
    Signature signature;
    tokens_.expect_operator("(");
    while (!tokens_.current().is_operator(")")) {
      signature.names.push_back(tokens_.expect_name());
      if (tokens_.skip_operator("=")) {
        signature.defaults.push_back(expressions_.expression());
      } else if (!signature.defaults.empty()) {
        tokens_.fail("a default for each argument behind one that has one");
      }
      if (!tokens_.skip_operator(",")) break;
    }
    tokens_.expect_operator(")");
    return signature;
  }

  MacroBody macro_body(std::string name, Signature signature, std::string_view end) {
    MacroUses uses;
    const int loops = std::exchange(loops_, 0);
    expressions_.macros.push_back(&uses);
    Body statements = inner_to(end);
    expressions_.macros.pop_back();
    loops_ = loops;
    const auto has = [&](std::string_view wanted) {
      return std::ranges::find(signature.names, wanted) != signature.names.end();
    };
    signature.uses_caller = uses.caller && !has("caller");
    signature.uses_varargs = uses.varargs && !has("varargs");
    signature.uses_kwargs = uses.kwargs && !has("kwargs");
    return {std::move(name), std::move(signature), std::move(statements)};
  }

  StatementPtr macro(int line) {
    std::string name = tokens_.expect_name();
    Signature taken = signature();
    return make<DefineMacro>(line, macro_body(std::move(name), std::move(taken), "endmacro"));
  }

  StatementPtr call(int line) {
    Signature taken;
    if (tokens_.current().is_operator("(")) taken = signature();
    ExpressionPtr called = expressions_.expression();
    const auto* call = dynamic_cast<const CallOf*>(called.get());
    if (call == nullptr)
      tokens_.fail_at(line, "expected a call behind \"call\", got something else");
    std::unique_ptr<const CallOf> owned(static_cast<const CallOf*>(called.release()));
    return make<CallBlock>(line, std::move(owned), macro_body("", std::move(taken), "endcall"));
  }

  StatementPtr with(int line) {
    std::vector<std::pair<Target, ExpressionPtr>> values;
    while (!tokens_.is_at(TokenKind::kTagEnd)) {
      if (!values.empty()) tokens_.expect_operator(",");
      Target target = expressions_.target(false);
      tokens_.expect_operator("=");
      values.emplace_back(std::move(target), expressions_.expression());
    }
    return make<With>(line, std::move(values), inner_to("endwith"));
  }

  StatementPtr print(int line) {
    Body shown;
    while (!tokens_.is_at(TokenKind::kTagEnd)) {
      if (!shown.empty()) tokens_.expect_operator(",");
      shown.push_back(make<Show>(line, expressions_.expression()));
    }
    return make<Group>(line, std::move(shown));
  }

  TokenReader tokens_;
  ExpressionParser expressions_;
  int level_ = 0, loops_ = 0;
};

}  // namespace

Body parse_template(const std::string& name, std::string_view source) {
  return Parser(name, source).whole();
}

}  // namespace memlayers::jinja
