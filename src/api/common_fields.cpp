// SPDX-License-Identifier: Apache-2.0
// What completions and chat completions take alike.
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <random>

#include "api/request.h"
#include "api/status.h"
#include "io/json.h"
#include "io/shown.h"

namespace memlayers::api {

namespace {

constexpr std::int64_t kMostStops = 16, kMostSlots = 32, kUsualSlots = 8, kMostWithout = 64;
constexpr double kMostTemperature = 2, kMostPenalty = 2, kMostBias = 100;
constexpr double kMostRepetitionPenalty = 10;

std::uint64_t some_seed() {
  std::random_device device;
  constexpr unsigned kBits = 31;  // JSON readers that know only doubles keep it
  return (static_cast<std::uint64_t>(device()) << 20U) ^ (device() >> (32U - kBits));
}

std::vector<std::string> read_stops(const io::JsonField& field) {
  if (field.is_string()) return {some_text(field)};
  if (!field.is_array()) field.fail("a string or a list of strings");
  const auto elements = field.elements();
  if (static_cast<std::int64_t>(elements.size()) > kMostStops) {
    field.fail("at most " + std::to_string(kMostStops) + " strings");
  }
  std::vector<std::string> stops;
  for (const auto& element : elements) stops.push_back(some_text(element));
  return stops;
}

std::vector<std::pair<std::int32_t, double>> read_bias(const io::JsonField& field,
                                                       std::int64_t vocab_size) {
  std::vector<std::pair<std::int32_t, double>> all;
  if (!field.is_object()) field.fail("an object of token ids and numbers");
  for (const auto& [name, value] : field.members()) {
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
    if (error != std::errc() || end != name.data() + name.size() || id < 0 || id >= vocab_size) {
      throw io::FieldError(field.path() + ": expected token ids in [0, " +
                               std::to_string(vocab_size) + "), got " + io::quote(name),
                           field.path());
    }
    all.emplace_back(id, number_in(value, -kMostBias, kMostBias));
  }
  return all;
}

void read_sampling(const io::JsonField& body, std::int64_t vocab_size, GenerateOptions& options) {
  options.temperature = 1;
  if (const auto f = body.find("temperature")) {
    options.temperature = number_in(*f, 0, kMostTemperature);
  }
  if (const auto f = body.find("top_p")) options.top_p = number_above(*f, 0, 1);
  if (const auto k = integer_or(body, "top_k", 0, -1, INT64_MAX); k > 0) options.top_k = k;
  if (const auto f = body.find("min_p")) options.min_p = number_in(*f, 0, 1);
  if (const auto f = body.find("repetition_penalty")) {
    options.repetition_penalty = number_above(*f, 0, kMostRepetitionPenalty);
  }
  if (const auto f = body.find("presence_penalty")) {
    options.presence_penalty = number_in(*f, -kMostPenalty, kMostPenalty);
  }
  if (const auto f = body.find("frequency_penalty")) {
    options.frequency_penalty = number_in(*f, -kMostPenalty, kMostPenalty);
  }
  if (const auto f = body.find("logit_bias")) options.logit_bias = read_bias(*f, vocab_size);
  if (const auto f = body.find("seed")) {  // any that 64 bits hold, as a receipt tells it
    options.seed = f->json().is_number_unsigned()
                       ? f->bits()
                       : static_cast<std::uint64_t>(f->integer(INT64_MIN, INT64_MAX));
  } else {
    options.seed = some_seed();
  }
  if (const auto f = body.find("stop")) options.stop = read_stops(*f);
  if (const auto f = body.find("stop_token_ids")) {
    options.stop_tokens = token_ids(*f, vocab_size);
    if (static_cast<std::int64_t>(options.stop_tokens.size()) > kMostStops) {
      f->fail("at most " + std::to_string(kMostStops) + " token ids");
    }
  }
  options.ignore_eos = body.boolean_or("ignore_eos", false);
}

void read_stream(const io::JsonField& body, Asked& asked) {
  asked.streams = body.boolean_or("stream", false);
  const auto options = body.find("stream_options");
  if (!options) return;
  static constexpr FieldRule kRules[] = {
      {"include_usage", "{}", ""},
      {"include_obfuscation", "{}", "events are as long as what they hold", "[false]"}};
  check_fields(*options, kRules);
  asked.includes_usage = options->boolean_or("include_usage", false);
  if (!asked.streams) options->fail("stream: true beside it");
}

// A member of the body, with all members in the order in which they were sent.
std::string text_of(const io::JsonField& field, std::string_view body) {
  if (body.empty()) return field.json().dump();
  const nlohmann::ordered_json all = io::parse_ordered_json(body, "body");
  const nlohmann::ordered_json* found = &all;
  std::string_view path = field.path();
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('.'), path.size());
    found = &found->at(std::string(path.substr(0, end)));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return found->dump();
}

// The schema's text; "" for plain text.
std::string read_format(const io::JsonField& format, std::string_view body) {
  const std::string type = format.at("type").string();
  if (type == "text") return {};
  if (type == "json_object") return R"({"type":"object"})";
  if (type != "json_schema") format.at("type").fail("\"text\", \"json_object\" or \"json_schema\"");
  static constexpr FieldRule kRules[] = {{"name", "{}", ""},
                                         {"schema", "{}", ""},
                                         {"description", "{}", "", "*"},
                                         {"strict", "{}", "", "*"}};  // it always is
  const io::JsonField json_schema = format.at("json_schema");
  check_fields(json_schema, kRules);
  if (!json_schema.at("schema").is_object()) json_schema.at("schema").fail("an object");
  return text_of(json_schema.at("schema"), body);
}

void read_grammar(const io::JsonField& body, const Reading& reading, Asked& asked) {
  const auto format = body.find("response_format");
  if (!format) return;
  asked.format = read_format(*format, reading.text);
  if (asked.format.empty()) return;
  try {
    asked.options.grammar = reading.grammar(asked.format);
  } catch (const Refusal&) {
    throw;
  } catch (const Error& error) {  // the model's tokenizer cannot write JSON
    throw Refusal(kBadRequest, "unsupported_parameter",
                  std::string("response_format: ") + error.what(), "response_format");
  }
}

std::int64_t read_explain(const io::JsonField& field) {
  if (field.is_integer()) return field.integer(1, kMostSlots);
  return field.boolean() ? kUsualSlots : 0;
}

}  // namespace

void read_common(const io::JsonField& body, const Reading& reading, Asked& asked) {
  check_model(body, reading);
  asked.n = integer_or(body, "n", 1, 1, reading.options.most_choices);
  read_sampling(body, reading.engine.tokenizer().vocab_size(), asked.options);
  read_stream(body, asked);
  read_grammar(body, reading, asked);
  asked.memory = read_memory_view(body, reading.engine);
  if (const auto explain = body.find("explain")) {
    asked.explain_slots = read_explain(*explain);
    if (asked.explain_slots > 0 && reading.engine.memory() == nullptr) {
      explain->fail("a model with memory layers");
    }
  }
  asked.gives_receipt = body.boolean_or("receipt", false);
}

void check_model(const io::JsonField& body, const Reading& reading) {
  const auto model = body.find("model");
  if (!model || model->string() == reading.engine.model_id()) return;
  const auto& aliases = reading.options.model_aliases;
  if (std::ranges::find(aliases, model->string()) != aliases.end()) return;
  throw Refusal(kNotFound, "model_not_found",
                "the model " + io::quote(model->string()) + " does not exist; this server has " +
                    io::quote(reading.engine.model_id()),
                "model");
}

MemoryView read_memory_view(const io::JsonField& body, Engine& engine) {
  MemoryView view;
  const auto memory = body.find("memory");
  if (!memory) return view;
  if (engine.memory() == nullptr) memory->fail("a model with memory layers");
  static constexpr FieldRule kRules[] = {{"version", "{}", ""},
                                         {"min_pool_version", "{}", ""},
                                         {"min_version", "{}", ""},
                                         {"without", "{}", ""},
                                         {"off", "{}", ""}};
  check_fields(*memory, kRules);
  if (const auto f = memory->find("version")) view.version = f->bits();
  if (const auto f = memory->find("min_version")) view.min_version = f->bits();
  if (const auto f = memory->find("min_pool_version")) view.min_version = f->bits();
  if (const auto f = memory->find("without")) {
    for (const auto& id : f->elements()) view.without.push_back(some_text(id));
    if (static_cast<std::int64_t>(view.without.size()) > kMostWithout) {
      f->fail("at most " + std::to_string(kMostWithout) + " ids of patches");
    }
  }
  view.off = memory->boolean_or("off", false);
  return view;
}

void fit_context(const Reading& reading, std::optional<std::int64_t> max_tokens,
                 const std::string& prompt_field, Asked& asked) {
  const std::int64_t context = reading.engine.context();
  const std::int64_t needed = max_tokens && *max_tokens == 0 ? 0 : 1;  // of the answer
  for (const Prompt& prompt : asked.prompts) {
    const auto tokens = static_cast<std::int64_t>(prompt.tokens.size());
    if (tokens + needed <= context) continue;
    throw Refusal(kBadRequest, "context_length_exceeded",
                  "This model's maximum context length is " + std::to_string(context) +
                      " tokens, of prompt and answer together; the prompt has " +
                      std::to_string(tokens) + ", and nothing of it is left out.",
                  prompt_field);
  }
  asked.options.max_tokens = max_tokens.value_or(context);
}

}  // namespace memlayers::api
