// SPDX-License-Identifier: Apache-2.0
#include "text/post_processor.h"

#include "text/vocabulary.h"

namespace memlayers::text {
namespace {

using Find = std::function<std::optional<std::int32_t>(const std::string&)>;

std::int32_t id_of(const JsonField& field) {
  return static_cast<std::int32_t>(field.integer(0, kMaxTokenId));
}

// A special token of a template stands for the ids that "special_tokens" gives it.
std::vector<std::int32_t> template_ids(const JsonField& processor, const JsonField& token,
                                       const Find& find) {
  const JsonField name = token.at("id");
  if (const auto known = processor.find("special_tokens")) {
    const auto entry = known->find(name.string());
    if (!entry) name.fail("a token of this template's special_tokens");
    std::vector<std::int32_t> ids;
    for (const JsonField& id : entry->at("ids").elements()) ids.push_back(id_of(id));
    return ids;
  }
  const auto id = find(name.string());
  if (!id) name.fail("a token of this file");
  return {*id};
}

Frame read_template(const JsonField& processor, const Find& find) {
  Frame frame;
  bool has_text = false;
  const JsonField single = processor.at("single");
  for (const JsonField& piece : single.elements()) {
    if (const auto sequence = piece.find("Sequence")) {
      const bool is_first = sequence->string_or("id", "A") == "A";
      if (has_text || !is_first) sequence->fail("the text \"A\", once");
      has_text = true;
    } else {
      const auto ids = template_ids(processor, piece.at("SpecialToken"), find);
      auto& side = has_text ? frame.suffix : frame.prefix;
      side.insert(side.end(), ids.begin(), ids.end());
    }
  }
  if (!has_text) single.fail("a template that has the text \"A\"");
  return frame;
}

// ["</s>", 2]
std::int32_t id_of_pair(const JsonField& pair) {
  const auto both = pair.elements();
  if (both.size() != 2) pair.fail("a token and its id");
  return id_of(both[1]);
}

}  // namespace

Frame read_post_processor(const JsonField& field, const Find& find) {
  const std::string type = field.type();
  if (type == "ByteLevel") return {};  // moves offsets, which nobody here asks for
  if (type == "TemplateProcessing") return read_template(field, find);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return {{id_of_pair(field.at("cls"))}, {id_of_pair(field.at("sep"))}};
  }
  if (type == "Sequence") {  // each puts its tokens around what the one before it made
    Frame frame;
    for (const JsonField& part : field.at("processors").elements()) {
      const Frame outer = read_post_processor(part, find);
      frame.prefix.insert(frame.prefix.begin(), outer.prefix.begin(), outer.prefix.end());
      frame.suffix.insert(frame.suffix.end(), outer.suffix.begin(), outer.suffix.end());
    }
    return frame;
  }
  field.fail(
      "a post-processor of type Sequence, ByteLevel, TemplateProcessing, BertProcessing or "
      "RobertaProcessing");
}

}  // namespace memlayers::text
