// SPDX-License-Identifier: Apache-2.0
#include "edit/explanation_json.h"

#include <nlohmann/json.hpp>

namespace memlayers::edit {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const ExplainedSlot& slot, const std::vector<std::string>& prompts) {
  Json reads = Json::array(), used = Json::array();
  for (const SlotRead& read : slot.reads) {
    reads.push_back({{"layer", read.layer},
                     {"head", read.head},
                     {"weight", read.weight},
                     {"by_token", read.by_token}});
  }
  Json json{{"slot", slot.slot},     {"change", slot.change}, {"weight", slot.weight},
            {"length", slot.length}, {"patch", nullptr},      {"reads", reads}};
  if (slot.patch) json["patch"] = *slot.patch;
  if (prompts.empty()) return json;
  for (const std::int64_t prompt : slot.prompts) {
    used.push_back(prompts[static_cast<std::size_t>(prompt)]);
  }
  json["prompts"] = used;
  return json;
}

Json subject_json(const MemoryConfidence& confidence) {
  Json json{{"match", confidence.match}, {"agreement", confidence.agreement}, {"patch", nullptr}};
  if (confidence.patch) json["patch"] = *confidence.patch;
  return json;
}

}  // namespace

Json explanation_json(const Explanation& explanation, const std::string& prompt,
                      const std::vector<std::string>& prompts) {
  Json slots = Json::array();
  for (const ExplainedSlot& slot : explanation.slots) slots.push_back(json_of(slot, prompts));
  Json json{{"prompt", prompt},
            {"answer", explanation.answer},
            {"is_own", explanation.is_own},
            {"tokens", explanation.tokens},
            {"log_probability", explanation.log_probability},
            {"slots_read", explanation.slots_read},
            {"slots", slots},
            {"memory_confidence", nullptr},
            {"subject", nullptr}};
  if (explanation.confidence) {
    json["memory_confidence"] = explanation.confidence->value;
    json["subject"] = subject_json(*explanation.confidence);
  }
  return json;
}

}  // namespace memlayers::edit
