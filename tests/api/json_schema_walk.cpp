// SPDX-License-Identifier: Apache-2.0
// Random answers through a schema's filter, for tests/python/test_json_schema.py and to measure by.
//
// json_schema_walk TOKENIZER: of each line of stdin, {"schema": text, "seed": n, "walks": n,
// "texts": [...]}, writes {"refusal": sentence} or {"answers": [...], "allowed": [...], "masks": n,
// "mean_ms": x, "worst_ms": x, "compile_ms": x, "build_ms": x}: whole answers (one that got too
// long: null), which of the texts the filter takes, and what its masks took. TOKENIZER "bytes": a
// token for each byte.
#include <algorithm>
#include <cmath>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "api/engine.h"
#include "api/json_schema.h"
#include "text/letter_tokenizer.h"
#include "text/token_bytes.h"

namespace memlayers::api {
namespace {

double cpu_ms() {  // of this thread: others may use the machine
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

class Walker {
 public:
  explicit Walker(const std::string& tokenizer)
      : tokenizer_(tokenizer == "bytes" ? std::make_shared<text::LetterTokenizer>()
                                        : load_tokenizer(tokenizer)),
        end_(tokenizer_->eos().value()),
        bytes_(text::token_bytes(*tokenizer_)),
        begin_ms_(cpu_ms()),
        grammars_(*tokenizer_, {end_}),
        build_ms_(cpu_ms() - begin_ms_) {}

  nlohmann::json run(const nlohmann::json& asked) {
    std::shared_ptr<const Grammar> grammar;
    const double begin = cpu_ms();
    try {
      grammar = grammars_.schema(asked.at("schema").get<std::string>());
    } catch (const Refusal& refusal) {
      return {{"refusal", refusal.what()}};
    }
    const double compile_ms = cpu_ms() - begin;
    masks_ = 0;
    total_ms_ = worst_ms_ = 0;
    nlohmann::json answers = nlohmann::json::array(), allowed = nlohmann::json::array();
    std::mt19937 random(asked.value("seed", 0U));
    for (int i = 0; i < asked.value("walks", 0); ++i) {
      const auto answer = walk(*grammar, random);
      answers.push_back(answer ? nlohmann::json(*answer) : nlohmann::json());
    }
    for (const auto& text : asked.value("texts", nlohmann::json::array())) {
      allowed.push_back(allows(*grammar, text.get<std::string>()));
    }
    return {{"answers", answers},
            {"allowed", allowed},
            {"masks", masks_},
            {"mean_ms", masks_ > 0 ? total_ms_ / static_cast<double>(masks_) : 0},
            {"worst_ms", worst_ms_},
            {"compile_ms", compile_ms},
            {"build_ms", build_ms_}};
  }

 private:
  void mask(const TokenFilter& filter) {
    logits_.assign(static_cast<std::size_t>(tokenizer_->vocab_size()), 0);
    const double begin = cpu_ms();
    filter.apply(logits_);
    const double took = cpu_ms() - begin;
    ++masks_;
    total_ms_ += took;
    worst_ms_ = std::max(worst_ms_, took);
  }

  // Draws from all tokens for a while, then mostly from those that close something.
  std::optional<std::string> walk(const Grammar& grammar, std::mt19937& random) {
    const auto filter = grammar.begin();
    std::string text;
    const std::size_t patience = random() % 60;
    for (std::size_t step = 0; step < 2000; ++step) {
      mask(*filter);
      std::vector<std::int32_t> left, closing;
      for (std::size_t id = 0; id < logits_.size(); ++id) {
        if (std::isinf(logits_[id])) continue;
        left.push_back(static_cast<std::int32_t>(id));
        const auto& bytes = bytes_[id];
        if (static_cast<std::int32_t>(id) == end_ || bytes == "\"" || bytes == "]" ||
            bytes == "}") {
          closing.push_back(static_cast<std::int32_t>(id));
        }
      }
      if (left.empty()) throw std::runtime_error("no token is left behind " + text);
      const bool closes = !closing.empty() && (step > patience || random() % 4 == 0);
      const auto& from = closes ? closing : left;
      const std::int32_t token = from[random() % from.size()];
      if (token == end_) return text;
      filter->take(token);
      text += bytes_[static_cast<std::size_t>(token)].value();
    }
    return std::nullopt;
  }

  bool allows(const Grammar& grammar, const std::string& text) {
    const auto filter = grammar.begin();
    for (const std::int32_t token : tokenizer_->encode(text)) {
      mask(*filter);
      if (std::isinf(logits_[static_cast<std::size_t>(token)])) return false;
      filter->take(token);
    }
    mask(*filter);
    return !std::isinf(logits_[static_cast<std::size_t>(end_)]);
  }

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const std::int32_t end_;
  const std::vector<std::optional<std::string>> bytes_;
  const double begin_ms_;
  JsonGrammars grammars_;
  const double build_ms_;
  std::vector<float> logits_;
  std::int64_t masks_ = 0;
  double total_ms_ = 0, worst_ms_ = 0;
};

}  // namespace
}  // namespace memlayers::api

int main(int argc, char** argv) {
  memlayers::api::Walker walker(argc > 1 ? argv[1] : "bytes");
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << walker.run(nlohmann::json::parse(line)).dump() << std::endl;
  }
}
