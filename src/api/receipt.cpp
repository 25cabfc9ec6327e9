// SPDX-License-Identifier: Apache-2.0
#include "api/receipt.h"

#include "io/folder.h"

namespace memlayers::api {
namespace {

Json sampling_of(const GenerateOptions& options) {
  Json json{{"max_tokens", options.max_tokens},
            {"temperature", options.temperature},
            {"seed", options.seed},
            {"repetition_penalty", options.repetition_penalty},
            {"presence_penalty", options.presence_penalty},
            {"frequency_penalty", options.frequency_penalty},
            {"ignore_eos", options.ignore_eos}};
  if (options.top_k) json["top_k"] = *options.top_k;
  if (options.top_p) json["top_p"] = *options.top_p;
  if (options.min_p) json["min_p"] = *options.min_p;
  if (!options.stop.empty()) json["stop"] = options.stop;
  if (!options.stop_tokens.empty()) json["stop_token_ids"] = options.stop_tokens;
  for (const auto& [token, bias] : options.logit_bias) {
    json["logit_bias"][std::to_string(token)] = bias;
  }
  return json;
}

Json format_of(const std::string& schema) {
  return {{"type", "json_schema"},
          {"json_schema", {{"name", "answer"}, {"schema", Json::parse(schema)}}}};
}

Json memory_of(const MemoryView& view, std::optional<std::uint64_t> version) {
  Json json = Json::object();
  if (version) json["version"] = *version;
  if (!view.without.empty()) json["without"] = view.without;
  if (view.off) json["off"] = true;
  return json;
}

}  // namespace

std::string answer_digest(std::span<const Choice> choices) {
  Json all = Json::array();
  for (const Choice& choice : choices) {
    all.push_back(
        {{"tokens", choice.ids}, {"text", choice.text}, {"finish_reason", finish_of(choice)}});
  }
  const std::string text = text_of(all);
  return io::xxh3_128_hex(std::as_bytes(std::span(text)));
}

Json receipt_of(const Engine& engine, const Asked& asked, std::optional<std::uint64_t> pool_version,
                std::span<const Choice> choices) {
  Json prompts = Json::array();
  for (const Prompt& prompt : asked.prompts) prompts.push_back(prompt.tokens);
  Json request{{"prompt", prompts}, {"n", asked.n}};
  request.update(sampling_of(asked.options));
  if (!asked.format.empty()) request["response_format"] = format_of(asked.format);
  const Json memory = memory_of(asked.memory, pool_version);
  if (!memory.empty()) request["memory"] = memory;
  Json json{
      {"kind", kReceiptKind},    {"model", engine.model_id()}, {"weights", engine.weights_digest()},
      {"pool_version", nullptr}, {"request", request},         {"answer", answer_digest(choices)}};
  if (pool_version) json["pool_version"] = *pool_version;
  return json;
}

}  // namespace memlayers::api
