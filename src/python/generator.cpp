// SPDX-License-Identifier: Apache-2.0
// Text from Python: a tokenizer, and a model whose prompts are continued step by step. Options and
// what comes of a step are JSON, whose fields are those of GenerateOptions and DecodedToken. All
// throw Error (RuntimeError in Python).
#include "memlayers/generator.h"

#include <torch/custom_class.h>

#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/json.h"
#include "io/json_field.h"
#include "io/model_config.h"
#include "memlayers/checkpoint.h"
#include "memlayers/confidence.h"
#include "memlayers/error.h"
#include "python/options.h"
#include "text/finish_reason.h"

namespace memlayers::python {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<std::int64_t>;

constexpr std::int64_t kMostId = std::numeric_limits<std::int32_t>::max();

std::vector<std::int32_t> tokens_of(const Ids& ids) {
  std::vector<std::int32_t> tokens;
  for (const std::int64_t id : ids) {
    if (id < 0 || id > kMostId) {
      throw Error("tokens: expected ids of 0 or more, got " + std::to_string(id));
    }
    tokens.push_back(static_cast<std::int32_t>(id));
  }
  return tokens;
}

Ids ids_of(const std::vector<std::int32_t>& tokens) { return {tokens.begin(), tokens.end()}; }

class PyTokenizer : public torch::CustomClassHolder {
 public:
  explicit PyTokenizer(const std::string& path) : tokenizer_(load_tokenizer(path)) {}
  explicit PyTokenizer(std::shared_ptr<const Tokenizer> tokenizer)
      : tokenizer_(std::move(tokenizer)) {}

  // special: what spells a special token becomes it.
  Ids encode(const std::string& text, bool special) const {
    return ids_of(special ? tokenizer_->encode_special(text) : tokenizer_->encode(text));
  }
  std::string decode(const Ids& ids) const { return tokenizer_->decode(tokens_of(ids)); }
  std::vector<std::string> tokens() const {
    std::vector<std::string> all;
    for (std::int64_t id = 0; id < tokenizer_->vocab_size(); ++id) {
      all.push_back(tokenizer_->token(static_cast<std::int32_t>(id)));
    }
    return all;
  }
  // What stands around a text, and the ids of BOS, EOS and padding, -1 for none.
  std::tuple<Ids, Ids, Ids> special() const {
    Ids named;
    for (const auto& id : {tokenizer_->bos(), tokenizer_->eos(), tokenizer_->pad()}) {
      named.push_back(id ? *id : -1);
    }
    return {ids_of(tokenizer_->prefix()), ids_of(tokenizer_->suffix()), named};
  }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
};

GenerateOptions options_of(const std::string& text) {
  const nlohmann::json parsed = io::parse_json(text, "options");
  const io::JsonField given(parsed, "options");
  given.expect_only({"max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
                     "presence_penalty", "frequency_penalty", "logit_bias", "seed", "stop",
                     "stop_tokens", "ignore_eos", "logprobs", "prompt_logprobs"});
  GenerateOptions options;
  read_count(given, "max_tokens", options.max_tokens);
  read_number(given, "temperature", options.temperature);
  read_count(given, "top_k", options.top_k);
  read_number(given, "top_p", options.top_p);
  read_number(given, "min_p", options.min_p);
  read_number(given, "repetition_penalty", options.repetition_penalty);
  read_number(given, "presence_penalty", options.presence_penalty);
  read_number(given, "frequency_penalty", options.frequency_penalty);
  if (const auto seed = given.find("seed")) options.seed = seed->bits();
  read_texts(given, "stop", options.stop);
  if (const auto stop = given.find("stop_tokens")) {
    for (const io::JsonField& id : stop->elements()) {
      options.stop_tokens.push_back(static_cast<std::int32_t>(id.integer(0, kMostId)));
    }
  }
  if (const auto biases = given.find("logit_bias")) {
    for (const io::JsonField& pair : biases->elements()) {
      const std::vector<io::JsonField> parts = pair.elements();
      if (parts.size() != 2) pair.fail("a token and what is added to its logit");
      options.logit_bias.emplace_back(static_cast<std::int32_t>(parts[0].integer(0, kMostId)),
                                      parts[1].number());
    }
  }
  options.ignore_eos = given.boolean_or("ignore_eos", false);
  read_count(given, "logprobs", options.logprobs);
  options.prompt_logprobs = given.boolean_or("prompt_logprobs", false);
  options.validate();
  return options;
}

Json json_of(const TokenLogprobs& place) {
  Json json{{"token", place.token}, {"logprob", nullptr}, {"top", Json::array()}};
  if (place.logprob) json["logprob"] = *place.logprob;
  for (const auto& [token, logprob] : place.top) json["top"].push_back({token, logprob});
  return json;
}

// Prompts that are continued together, so many at a time; the first row is number 0.
class Decoding : public torch::CustomClassHolder {
 public:
  Decoding(Llama model, std::shared_ptr<const Tokenizer> tokenizer, std::optional<Snapshot> rows,
           const std::vector<Ids>& prompts, const GenerateOptions& options)
      : decoder_(std::move(model), std::move(tokenizer)), rows_(std::move(rows)) {
    for (const Ids& prompt : prompts) waiting_.push_back(tokens_of(prompt));
    options_ = options;
    join_some();  // what is wrong is told before the first step
  }

  // A JSON array of what came, in the order of the rows that are there; [] at the end.
  std::string step() {
    Json made = Json::array();
    join_some();
    for (DecodedToken& token : decoder_.step()) {
      made.push_back(json_of(token, rows_of_.at(token.sequence)));
    }
    return made.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  bool is_idle() const { return waiting_.empty() && decoder_.is_idle(); }
  void leave(std::int64_t row) {
    for (const auto& [sequence, number] : rows_of_) {
      if (number == row) decoder_.leave(sequence);
    }
  }
  std::int64_t pool_version() const {
    return rows_ ? static_cast<std::int64_t>(rows_->version()) : 0;
  }

 private:
  void join_some() {
    constexpr std::int64_t kTogether = 64;
    while (!waiting_.empty() && decoder_.sequences() < kTogether) {
      rows_of_[decoder_.join(waiting_.front(), options_, {.rows = rows_})] = next_++;
      waiting_.pop_front();
    }
  }
  static Json json_of(const DecodedToken& made, std::int64_t row) {
    Json json{{"row", row}, {"text", made.text}};
    if (made.token && !made.is_end) json["token"] = *made.token;
    if (made.logprobs) json["logprobs"] = python::json_of(*made.logprobs);
    for (const TokenLogprobs& place : made.prompt_logprobs) {
      json["prompt_logprobs"].push_back(python::json_of(place));
    }
    if (made.finish) json["finish"] = text::name_of(*made.finish);
    if (!made.error.empty()) json["error"] = made.error;
    return json;
  }

  Decoder decoder_;
  std::optional<Snapshot> rows_;
  GenerateOptions options_;
  std::deque<std::vector<std::int32_t>> waiting_;
  std::map<std::int64_t, std::int64_t> rows_of_;  // by sequence
  std::int64_t next_ = 0;
};

class PyGenerator : public torch::CustomClassHolder {
 public:
  explicit PyGenerator(const std::string& folder)
      : folder_(resolve_model_folder(folder)),
        model_(open_model(folder_)),
        tokenizer_(load_tokenizer(folder_)) {
    model_->eval();
  }

  std::string folder() const { return folder_; }
  std::string config() const { return io::model_config_json(model_->config()); }
  c10::intrusive_ptr<PyTokenizer> tokenizer() const {
    return c10::make_intrusive<PyTokenizer>(tokenizer_);
  }
  Ids encode_prompt(const std::string& text) const {
    return ids_of(tokenizer_->encode_prompt(text));
  }
  // Begins with the edits made so far. store_error() says why they could not be followed.
  c10::intrusive_ptr<Decoding> begin(const std::vector<Ids>& prompts, const std::string& options) {
    const GenerateOptions parsed = options_of(options);
    std::optional<Snapshot> rows;
    store_error_.clear();
    if (!model_->pool().is_empty()) {
      try {
        model_->pool()->refresh();
      } catch (const Error& error) {
        store_error_ = error.what();
      }
      rows = model_->pool()->snapshot();
    }
    return c10::make_intrusive<Decoding>(model_, tokenizer_, std::move(rows), prompts, parsed);
  }
  std::string store_error() const { return store_error_; }
  // That an applied patch taught what a prompt asks for, as JSON; absent: none says what it
  // teaches.
  std::optional<std::string> memory_confidence(const std::string& prompt) {
    if (!asker_) {
      asker_.emplace(model_, tokenizer_);
      asker_->ask_by_its_template();
    }
    const auto confidence = memlayers::memory_confidence(*asker_, prompt);
    if (!confidence) return std::nullopt;
    Json json{{"value", confidence->value},
              {"match", confidence->match},
              {"agreement", confidence->agreement},
              {"patch", nullptr}};
    if (confidence->patch) json["patch"] = *confidence->patch;
    return json.dump();
  }
  // The logits of whole sequences [B, T]: [B, T, vocab_size] float32, without gradients.
  at::Tensor logits(const at::Tensor& tokens) {
    const torch::NoGradGuard no_grad;
    return model_->forward(tokens);
  }

 private:
  std::string folder_, store_error_;
  std::optional<Generator> asker_;
  Llama model_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(memlayers, m) {
  m.class_<PyTokenizer>("Tokenizer")
      .def(torch::init<const std::string&>())
      .def("encode", &PyTokenizer::encode)
      .def("decode", &PyTokenizer::decode)
      .def("tokens", &PyTokenizer::tokens)
      .def("special", &PyTokenizer::special);
  m.class_<Decoding>("Decoding")
      .def("step", &Decoding::step)
      .def("is_idle", &Decoding::is_idle)
      .def("leave", &Decoding::leave)
      .def("pool_version", &Decoding::pool_version);
  m.class_<PyGenerator>("Generator")
      .def(torch::init<const std::string&>())
      .def("folder", &PyGenerator::folder)
      .def("config", &PyGenerator::config)
      .def("tokenizer", &PyGenerator::tokenizer)
      .def("encode_prompt", &PyGenerator::encode_prompt)
      .def("begin", &PyGenerator::begin)
      .def("store_error", &PyGenerator::store_error)
      .def("memory_confidence", &PyGenerator::memory_confidence)
      .def("logits", &PyGenerator::logits);
}

}  // namespace memlayers::python
