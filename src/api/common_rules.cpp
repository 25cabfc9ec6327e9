// SPDX-License-Identifier: Apache-2.0
// The table of fields that completions and chat completions have alike.
#include "api/request.h"

namespace memlayers::api {

const FieldRule kModelRule{"model", R"({"type":"string"})",
                           "The model's name, as /v1/models tells it; it may be left out."};
const FieldRule kMemoryRule{
    "memory",
    R"({"type":"object","additionalProperties":false,"properties":{
      "version":{"type":"integer","minimum":0},"min_pool_version":{"type":"integer","minimum":0},
      "min_version":{"type":"integer","minimum":0},"off":{"type":"boolean"},
      "without":{"type":"array","items":{"type":"string"},"maxItems":64}}})",
    "Which state of the pool the answer is made with: a version that is still held; one that is at "
    "least min_pool_version, for which it waits; without these patches; without any memory."};

namespace {

constexpr FieldRule kCommon[] = {
    {"n", R"({"type":"integer","minimum":1,"default":1})", "Answers to each prompt."},
    {"temperature", R"({"type":"number","minimum":0,"maximum":2,"default":1})",
     "0: the most likely token each time."},
    {"top_p", R"({"type":"number","exclusiveMinimum":0,"maximum":1,"default":1})",
     "Keep the smallest set of tokens with this much probability."},
    {"top_k", R"({"type":"integer","minimum":-1})",
     "Keep so many of the most likely tokens; 0 and -1: all (vLLM's)."},
    {"min_p", R"({"type":"number","minimum":0,"maximum":1})",
     "Keep tokens of at least this share of the greatest probability (vLLM's)."},
    {"repetition_penalty", R"({"type":"number","exclusiveMinimum":0,"maximum":10,"default":1})",
     "Logits of tokens that prompt or answer hold are divided by it (vLLM's)."},
    {"presence_penalty", R"({"type":"number","minimum":-2,"maximum":2,"default":0})",
     "Taken off the logits of tokens that the answer holds."},
    {"frequency_penalty", R"({"type":"number","minimum":-2,"maximum":2,"default":0})",
     "The same, for each time that the answer holds them."},
    {"logit_bias",
     R"({"type":"object","additionalProperties":{"type":"number","minimum":-100,"maximum":100}})",
     "Added to the logits of these token ids."},
    {"seed", R"({"type":"integer"})",
     "The same request with the same seed has the same answer; choice i draws from seed + i."},
    {"stop",
     R"({"anyOf":[{"type":"string","minLength":1},
      {"type":"array","items":{"type":"string","minLength":1},"maxItems":16}]})",
     "Texts that end an answer; they are no part of it."},
    {"stop_token_ids", R"({"type":"array","items":{"type":"integer","minimum":0},"maxItems":16})",
     "Tokens that end an answer as well (vLLM's)."},
    {"ignore_eos", R"({"type":"boolean","default":false})",
     "Go on behind the model's end tokens (vLLM's)."},
    {"stream", R"({"type":"boolean","default":false})", "Answer in server-sent events."},
    {"stream_options",
     R"({"type":"object","additionalProperties":false,"properties":{
      "include_usage":{"type":"boolean"},"include_obfuscation":{"const":false}}})",
     "include_usage: a last event with `usage` and no choices. Only with stream."},
    {"response_format",
     R"({"type":"object","required":["type"],"properties":{
      "type":{"enum":["text","json_object","json_schema"]},"json_schema":{"type":"object"}}})",
     "The answer is a JSON object, or one that this schema allows; see docs/json_answers.md for "
     "what of "
     "JSON Schema is known."},
    {"explain",
     R"({"anyOf":[{"type":"boolean"},{"type":"integer","minimum":1,"maximum":32}],"default":false})",
     "With each token the slots of the memory that it rested on most (so many, or 8), and the "
     "patches that wrote them."},
    {"receipt", R"({"type":"boolean","default":false})",
     "With the answer a receipt, for /v1/memory/replay."},
    {"user", R"({"type":"string"})", "", "*"},
    {"metadata", R"({"type":"object"})", "", "*"},
    {"store", R"({"const":false})", "nothing is stored", "[false]"},
    {"service_tier", R"({"enum":["auto","default"]})", "there is one tier",
     R"(["auto","default"])"},
    {"safety_identifier", R"({"type":"string"})", "", "*"},
    {"prompt_cache_key", R"({"type":"string"})", "", "*"},
    {"prompt_cache_retention", R"({"type":"string"})", "", "*"},
};

}  // namespace

std::vector<FieldRule> with_common_rules(std::vector<FieldRule> own) {
  own.push_back(kModelRule);
  own.insert(own.end(), std::begin(kCommon), std::end(kCommon));
  own.push_back(kMemoryRule);
  return own;
}

}  // namespace memlayers::api
