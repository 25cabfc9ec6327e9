// SPDX-License-Identifier: Apache-2.0
// An engine over a small model in a folder, and those who listen to it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "generate/decoder_testing.h"
#include "memlayers/store.h"
#include "serve/model_engine.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers::testing {

// What came of one sequence.
class Heard final : public api::Listener {
 public:
  void judged(double memory_confidence) override { confidence_ = memory_confidence; }
  void started(std::uint64_t pool_version, std::int64_t cached_prompt_tokens) override {
    const std::lock_guard lock(mutex_);
    version_ = pool_version;
    cached_ = cached_prompt_tokens;
    ++starts_;
    changed_.notify_all();
  }
  void token(const DecodedToken& token, const std::vector<api::TokenSlot>& slots) override {
    {
      const std::lock_guard lock(mutex_);
      add(token, answer_);
      is_fault_ = is_fault_ || token.is_fault;
      slots_.push_back(slots);
      changed_.notify_all();
    }
    if (on_token) on_token();
  }

  // Throws where it takes a minute.
  void wait(const std::function<bool(const Heard&)>& until) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::minutes(1), [&] { return until(*this); })) {
      throw Error("expected an answer within a minute, got none");
    }
  }
  Answer answer() {
    wait([](const Heard& heard) { return heard.answer_.finish.has_value(); });
    return answer_;
  }
  void wait_for_tokens(std::size_t count) {
    wait([&](const Heard& heard) { return heard.answer_.tokens.size() >= count; });
  }
  std::size_t tokens() {
    const std::lock_guard lock(mutex_);
    return answer_.tokens.size();
  }
  bool has_started() {
    const std::lock_guard lock(mutex_);
    return starts_ > 0;
  }
  // Of one that has started, or ended.
  std::uint64_t version() const { return version_; }
  std::int64_t cached() const { return cached_; }
  std::optional<double> confidence() const { return confidence_; }
  int starts() const { return starts_; }
  bool is_fault() const { return is_fault_; }
  const std::vector<std::vector<api::TokenSlot>>& slots() const { return slots_; }

  std::function<void()> on_token;  // set before it listens

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Answer answer_;
  std::uint64_t version_ = 0;
  std::int64_t cached_ = -1;
  std::optional<double> confidence_;
  int starts_ = 0;
  bool is_fault_ = false;
  std::vector<std::vector<api::TokenSlot>> slots_;
};

class Serving : public ::testing::Test {
 protected:
  explicit Serving(const ModelConfig& config = long_config())
      : Serving(tiny_generator(config).model()) {}
  explicit Serving(const Llama& model) : config_(model->config()) {
    save_model(model, folder());
    write_file(dir_ / tiny_tokenizer()->file_name(), tiny_tokenizer()->file_bytes());
  }
  std::string folder() const { return dir_.path(); }
  std::string pool() const { return dir_ / "pool"; }
  void open(const serve::EngineOptions& options = {}) {
    engine_.reset();  // one writer at a time
    engine_ = serve::ModelEngine::open(folder(), options);
  }
  api::Memory& memory() { return *engine_->memory(); }

  std::pair<std::int64_t, std::shared_ptr<Heard>> ask(const Request& request,
                                                      const api::MemoryView& memory = {}) {
    const auto heard = std::make_shared<Heard>();
    return {engine_->submit({{job(request, memory), heard}}).front(), heard};
  }
  static api::Job job(const Request& request, const api::MemoryView& memory = {}) {
    return {.prompt = request.prompt, .options = request.options, .memory = memory};
  }
  // A sequence of many tokens.
  static Request long_request(std::int64_t tokens = 150) { return {{5, 6, 7}, drawing(tokens)}; }
  // What a decoder of its own says.
  Answer alone_with(const Request& request, const SequenceMemory& memory) {
    if (plain_.is_empty()) plain_ = open_model(folder());
    Decoder decoder(plain_, tiny_tokenizer());
    decoder.join(request.prompt, request.options, memory);
    Answer answer;
    while (!decoder.is_idle()) {
      for (const DecodedToken& made : decoder.step()) add(made, answer);
    }
    return answer;
  }
  // Rows of these slots become something else, which `id` and `factor` tell.
  Patch patch(const std::string& id, std::vector<std::int64_t> slots, float factor = 3) {
    const Snapshot now = memory().snapshot();
    Patch made{.id = id, .pool = now.pool_id(), .width = now.width()};
    for (const std::int64_t slot : slots) {
      std::vector<float> row(static_cast<std::size_t>(now.width()));
      for (std::size_t i = 0; i < row.size(); ++i) {
        row[i] = factor * std::sin(static_cast<float>(slot + 1) * static_cast<float>(i + 1));
      }
      const auto bytes = std::as_bytes(std::span(row));
      made.rows.insert(made.rows.end(), bytes.begin(), bytes.end());
    }
    made.slots = std::move(slots);
    return made;
  }
  Patch patch_of_all(const std::string& id, float factor = 3) {
    std::vector<std::int64_t> slots;
    for (std::int64_t slot = 0; slot < config_.memory->slots(); ++slot) slots.push_back(slot);
    return patch(id, slots, factor);
  }
  // What a Refusal says; fails where there is none.
  static api::Refusal refusal_of(const std::function<void()>& act) {
    try {
      act();
    } catch (const api::Refusal& refusal) {
      return refusal;
    }
    ADD_FAILURE() << "expected a Refusal";
    return {0, "", ""};
  }
  static void wait_until(const std::function<bool()>& holds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!holds()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  TempDir dir_;
  ModelConfig config_;
  std::unique_ptr<serve::ModelEngine> engine_;
  Llama plain_{nullptr};
};

}  // namespace memlayers::testing
