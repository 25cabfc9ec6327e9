// SPDX-License-Identifier: Apache-2.0
#include "api/grammar/pattern.h"

#include <cstdint>
#include <vector>

#include "api/grammar/regex_tree.h"

namespace memlayers::api::grammar {
namespace {

class Builder {
 public:
  explicit Builder(Program& program) : program_(program) {}

  NodeId build(const RegexTree& tree, NodeId next) {
    program_.spend();
    switch (tree.kind) {
      case RegexTree::Kind::kCharacter:
        return spelled(program_, tree.characters, next);
      case RegexTree::Kind::kSequence:
        for (auto part = tree.parts.rbegin(); part != tree.parts.rend(); ++part) {
          next = build(*part, next);
        }
        return next;
      case RegexTree::Kind::kEither: {
        std::vector<NodeId> ways;
        for (const RegexTree& part : tree.parts) ways.push_back(build(part, next));
        return program_.any_of(ways);
      }
      case RegexTree::Kind::kRepeat:
        return repeat(tree, next);
    }
    return next;
  }

  NodeId any(NodeId next) {
    return program_.star([&](NodeId again) { return spelled(program_, all_characters(), again); },
                         next);
  }

 private:
  NodeId repeat(const RegexTree& tree, NodeId next) {
    const RegexTree& part = tree.parts.front();
    NodeId begin = next;
    if (tree.most == kUnlimited) {
      begin = program_.star([&](NodeId again) { return build(part, again); }, next);
    } else {
      for (std::uint32_t i = tree.least; i < tree.most; ++i) {
        begin = program_.split(build(part, begin), next);
      }
    }
    for (std::uint32_t i = 0; i < tree.least; ++i) begin = build(part, begin);
    return begin;
  }

  Program& program_;
};

}  // namespace

NodeId pattern(Program& program, std::string_view regex, NodeId next) {
  Builder builder(program);
  std::vector<NodeId> starts;
  for (const RegexWay& way : read_regex(regex)) {
    const NodeId behind = way.at_end ? next : builder.any(next);
    const NodeId found = builder.build(way.tree, behind);
    starts.push_back(way.at_start ? found : builder.any(found));
  }
  return program.any_of(starts);
}

}  // namespace memlayers::api::grammar
