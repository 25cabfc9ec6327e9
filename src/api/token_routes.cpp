// SPDX-License-Identifier: Apache-2.0
// The tokenizer over HTTP, in the fields of vLLM and of llama-server at once.
#include <array>

#include "api/request.h"
#include "api/routes.h"
#include "api/status.h"
#include "io/json.h"

namespace memlayers::api {
namespace {

const FieldRule kTokenizeRules[] = {
    {"prompt", R"({"type":"string"})", "A text (vLLM's); or give messages, or content."},
    {"content", R"({"type":"string"})", "A text (llama-server's)."},
    kMessagesRule,
    kModelRule,
    {"add_special_tokens", R"({"type":"boolean","default":true})",
     "With prompt: whether the tokenizer's prefix (BOS) stands before it."},
    {"return_token_strs", R"({"type":"boolean","default":false})",
     "Also `token_strs`, as the vocabulary spells them."},
    {"add_special", R"({"type":"boolean","default":false})", "The same, with content."},
    {"parse_special", R"({"type":"boolean","default":true})",
     "Whether what spells a control token is one, as vLLM's and llama-server's have it."},
    {"with_pieces", R"({"type":"boolean","default":false})",
     "With content: `tokens` of objects {id, piece}; a piece that is no text is a list of bytes."},
    kGenerationPromptRule,
    kTemplateKwargsRule};
const FieldRule kDetokenizeRules[] = {
    {"tokens", R"({"type":"array","items":{"type":"integer","minimum":0}})", "Token ids."},
    kModelRule};
const FieldRule kTemplateRules[] = {kMessagesRule, kModelRule, kGenerationPromptRule,
                                    kTemplateKwargsRule};

using Ids = std::vector<std::int32_t>;

Ids ids_of_text(const Tokenizer& tokenizer, const std::string& text, bool adds_special,
                bool parses_special) {
  Ids ids;
  if (adds_special) ids = tokenizer.prefix();
  const std::array pieces{PromptPiece{text, true}};
  const Ids own = parses_special ? tokenizer.encode_pieces(pieces) : tokenizer.encode(text);
  ids.insert(ids.end(), own.begin(), own.end());
  return ids;
}

Ids ids_of(const io::JsonField& body, const Engine& engine) {
  const Tokenizer& tokenizer = engine.tokenizer();
  const auto prompt = body.find("prompt"), content = body.find("content");
  const int given = (prompt ? 1 : 0) + (content ? 1 : 0) + (body.find("messages") ? 1 : 0);
  if (given != 1) body.fail("one of the fields \"prompt\", \"content\" and \"messages\"");
  if (prompt) {
    return ids_of_text(tokenizer, prompt->string(), body.boolean_or("add_special_tokens", true),
                       body.boolean_or("parse_special", true));
  }
  if (content) {
    return ids_of_text(tokenizer, content->string(), body.boolean_or("add_special", false),
                       body.boolean_or("parse_special", true));
  }
  return tokenizer.encode_pieces(read_conversation(body, engine));
}

Json piece_json(const TokenTexts& texts, std::int32_t id) {
  const std::string bytes = texts(id).bytes;
  const std::string name = name_of(bytes);
  if (name == bytes) return {{"id", id}, {"piece", bytes}};
  Json list = Json::array();
  for (const char c : bytes) list.push_back(static_cast<unsigned char>(c));
  return {{"id", id}, {"piece", list}};
}

void tokenize(const Call& call) {
  const nlohmann::json json = call.body();
  const io::JsonField body(json, "");
  check_fields(body, kTokenizeRules);
  check_model(body, call.shared->reading());
  const Engine& engine = call.shared->engine;
  const Ids ids = ids_of(body, engine);
  Json answer{{"count", ids.size()}, {"max_model_len", engine.context()}, {"tokens", ids}};
  if (body.boolean_or("with_pieces", false)) {
    answer["tokens"] = Json::array();
    for (const std::int32_t id : ids) {
      answer["tokens"].push_back(piece_json(call.shared->texts, id));
    }
  }
  answer["token_strs"] = nullptr;
  if (body.boolean_or("return_token_strs", false)) {
    answer["token_strs"] = Json::array();
    for (const std::int32_t id : ids) answer["token_strs"].push_back(engine.tokenizer().token(id));
  }
  call.answer(kOk, answer);
}

void detokenize(const Call& call) {
  const nlohmann::json json = call.body();
  const io::JsonField body(json, "");
  check_fields(body, kDetokenizeRules);
  check_model(body, call.shared->reading());
  const Ids ids = token_ids(body.at("tokens"), call.shared->engine.tokenizer().vocab_size());
  const std::string text = text_with_special(call.shared->texts, ids);
  call.answer(kOk, {{"prompt", text}, {"content", text}});
}

void apply_template(const Call& call) {
  const nlohmann::json json = call.body();
  const io::JsonField body(json, "");
  check_fields(body, kTemplateRules);
  check_model(body, call.shared->reading());
  call.answer(kOk, {{"prompt", joined(read_conversation(body, call.shared->engine))}});
}

// The template's source among the tokenizer's files; null where it is none or one of several.
Json template_source(const Tokenizer& tokenizer) {
  for (const auto& [name, bytes] : tokenizer.files()) {
    if (name == "chat_template.jinja") return bytes;
    if (name != "tokenizer_config.json" && name != "chat_template.json") continue;
    const nlohmann::json config = io::parse_json(bytes, name);
    const auto found = config.find("chat_template");
    if (found != config.end() && found->is_string()) return found->get<std::string>();
  }
  return nullptr;
}

void tokenizer_info(const Call& call) {
  const Engine& engine = call.shared->engine;
  const Tokenizer& tokenizer = engine.tokenizer();
  Json info{{"tokenizer_class", "memlayers"},
            {"file", tokenizer.file_name()},
            {"vocab_size", tokenizer.vocab_size()},
            {"model_max_length", engine.context()}};
  const auto put = [&](const std::string& name, std::optional<std::int32_t> id) {
    info[name] = nullptr;
    info[name + "_id"] = nullptr;
    if (!id) return;
    info[name] = tokenizer.token(*id);
    info[name + "_id"] = *id;
  };
  put("bos_token", tokenizer.bos());
  put("eos_token", tokenizer.eos());
  put("pad_token", tokenizer.pad());
  info["chat_template"] = template_source(tokenizer);
  call.answer(kOk, info);
}

}  // namespace

std::vector<Route> token_routes() {
  return {{.method = "POST",
           .path = "/tokenize",
           .where = Where::kAsks,
           .body = Body::kJson,
           .summary = "A text or a conversation as token ids.",
           .fields = [] { return FieldRules(kTokenizeRules); },
           .run = tokenize},
          {.method = "POST",
           .path = "/detokenize",
           .where = Where::kAsks,
           .body = Body::kJson,
           .summary = "Token ids as text, special tokens by their names.",
           .fields = [] { return FieldRules(kDetokenizeRules); },
           .run = detokenize},
          {.method = "POST",
           .path = "/apply-template",
           .where = Where::kAsks,
           .body = Body::kJson,
           .summary = "A conversation as the model's chat template writes it.",
           .fields = [] { return FieldRules(kTemplateRules); },
           .run = apply_template},
          {.method = "GET",
           .path = "/tokenizer_info",
           .where = Where::kAsks,
           .summary = "The tokenizer's special tokens and chat template.",
           .run = tokenizer_info}};
}

}  // namespace memlayers::api
