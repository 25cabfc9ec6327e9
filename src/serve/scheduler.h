// SPDX-License-Identifier: Apache-2.0
// Who is answered when: a queue before a decoder, and the thread that makes its steps.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "api/engine.h"
#include "memlayers/decoder.h"
#include "serve/model_engine.h"
#include "serve/piece_size.h"
#include "serve/pool_views.h"

namespace memlayers::serve {

// First come first served: a sequence joins the decoder as soon as there is a place, a step takes
// all that are there, and listeners are told without any lock held. Functions may be called from
// several threads.
class Scheduler {
 public:
  using Jobs = std::vector<std::pair<api::Job, std::shared_ptr<api::Listener>>>;

  // Begins at once. `views` must outlive it.
  Scheduler(Llama model, std::shared_ptr<const Tokenizer> tokenizer, PoolViews& views,
            const EngineOptions& options);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Before the first sequence: how prompts are judged, as Generator::judge_by().
  void judge_by(Generator::Judge judge, std::optional<double> least);

  std::int64_t context() const { return context_; }
  std::vector<std::int64_t> submit(Jobs jobs);         // as api::Engine
  void cancel(const std::vector<std::int64_t>& jobs);  // as api::Engine
  api::EngineCounters counters() const;
  void wake();  // the pool has changed: some may wait for that
  // Something of the machine is wrong, for all: counters() tell it for a while.
  void report_trouble(const std::string& what);

  void drain();
  bool wait_until_idle(double seconds);
  void stop();

 private:
  using Clock = std::chrono::steady_clock;
  struct Sequence {
    std::int64_t id = 0, call = 0;  // call: the first id of those that came with it
    api::Job job = {};
    std::shared_ptr<api::Listener> listener = {};
    std::optional<SequenceMemory> memory = {};  // none yet: it waits for a version
    std::optional<double> confidence = {};      // as the prompt was judged
    bool is_judged = false;
    std::string refusal = {};  // why it cannot be answered after all
    std::shared_ptr<std::atomic<bool>> is_cancelled = {};
    std::int64_t bytes = 0;        // of keys and values, at most
    std::int64_t prompt_left = 0;  // that is not taken in
    Clock::time_point since = {};  // when it joined
  };

  void check(api::Job& job, std::size_t index, std::size_t jobs) const;
  api::Refusal full(std::size_t jobs) const;  // requires mutex_
  double seconds_until_a_place() const;       // requires mutex_
  void follow();
  void judge(Sequence& sequence);
  void run();
  bool wait();  // for something to do; false: the end
  void let_go();
  void resolve();
  void admit();
  bool admit_one(Sequence& next);
  std::pair<std::int64_t, std::int64_t> planned_tokens();
  void step();
  void deliver(const DecodedToken& token);
  void tell(const Sequence& sequence, const std::function<void(api::Listener&)>& call);
  void fail(const Sequence& sequence, const std::string& error, bool is_fault);

  const EngineOptions options_;
  const std::int64_t context_, cache_bytes_;
  PoolViews& views_;
  Llama model_;
  Generator::Judge judge_;  // none: prompts are not judged
  std::optional<double> least_;
  Decoder decoder_;                             // of the thread alone
  PieceSize piece_;                             // of the thread alone
  std::map<std::int64_t, Sequence> sequences_;  // by number in the decoder; of the thread alone

  mutable std::mutex mutex_;  // guards what is below
  std::condition_variable changed_, idle_;
  std::deque<Sequence> queue_;
  std::map<std::int64_t, std::shared_ptr<std::atomic<bool>>> open_;  // queued and running, by id
  bool has_cancelled_ = false, is_draining_ = false, is_stopping_ = false, is_busy_ = false,
       pool_changed_ = false;
  std::int64_t next_id_ = 0;
  double seconds_a_sequence_ = 1;  // of late, from joining to leaving
  api::EngineCounters counters_;
  std::int64_t claimed_bytes_ = 0;
  std::string trouble_;
  Clock::time_point trouble_since_ = {};

  std::thread thread_;  // the last: it uses all above
};

}  // namespace memlayers::serve
