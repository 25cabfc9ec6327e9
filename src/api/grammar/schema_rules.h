// SPDX-License-Identifier: Apache-2.0
// Schemas as rules: which there are, and what each type makes of its keywords.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "api/grammar/program.h"
#include "api/grammar/schema_place.h"

namespace memlayers::api::grammar {

// Rules that each take one value: any of them.
using Values = std::vector<RuleId>;

class SchemaRules {
 public:
  explicit SchemaRules(const SchemaJson& document) : document_(document) {}
  Program compile(const ByteSet& single);

 private:
  Values values(const SchemaPlace& place);
  Values read_values(const SchemaPlace& place);
  Values typed(const SchemaPlace& place);
  Values any_value();
  void check_apart(const std::vector<SchemaPlace>& branches) const;
  NodeId call(const Values& values, NodeId next);
  RuleId rule(const SchemaPlace& place, const std::string& type);

  NodeId build(const SchemaPlace& place, const std::string& type, NodeId end);
  NodeId fixed(const SchemaPlace& place, NodeId end);
  NodeId fixed_value(const SchemaJson& value, NodeId next);
  NodeId fixed_texts(const std::set<std::u32string>& texts, NodeId next);
  NodeId object(const SchemaPlace& place, NodeId end);
  NodeId array(const SchemaPlace& place, NodeId end);
  NodeId string(const SchemaPlace& place, NodeId end);
  NodeId integers(const SchemaPlace& place, NodeId end);
  NodeId numbers(const SchemaPlace& place, NodeId end);

  struct Pending {
    RuleId rule;
    SchemaPlace place;
    std::string type;
  };
  const SchemaJson& document_;
  const SchemaJson any_ = SchemaJson::object();
  Program program_;
  std::map<const SchemaJson*, Values> known_;
  std::set<const SchemaJson*> open_;  // whose values are being looked for
  std::map<std::pair<const SchemaJson*, std::string>, RuleId> rules_;
  std::deque<Pending> pending_;
};

}  // namespace memlayers::api::grammar
