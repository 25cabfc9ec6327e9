// SPDX-License-Identifier: Apache-2.0
// What the HTTP interface asks of the model behind it. Knows nothing of torch: src/serve implements
// it with a Decoder and the pool's store, tests with a model of a few lines.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/chat.h"
#include "memlayers/error.h"
#include "memlayers/generate_options.h"
#include "memlayers/store.h"
#include "memlayers/tokenizer.h"

namespace memlayers::api {

// Why a request is not taken, as HTTP and OpenAI's errors say it.
class Refusal : public Error {
 public:
  Refusal(int status, std::string code, const std::string& message,
          std::optional<std::string> param = {})
      : Error(message), status_(status), code_(std::move(code)), param_(std::move(param)) {}
  int status() const { return status_; }             // 400, 404, 409, 412, 429, 503, ...
  const std::string& code() const { return code_; }  // "context_length_exceeded", ...
  const std::optional<std::string>& param() const { return param_; }  // the field that is wrong
  std::optional<double> retry_after_s;                                // of 429 and 503

 private:
  int status_;
  std::string code_;
  std::optional<std::string> param_;
};

// Which state of the pool an answer is made with; a request keeps to it to its end.
struct MemoryView {
  std::optional<std::uint64_t> version = {};      // one that is still held; absent: how it is now
  std::optional<std::uint64_t> min_version = {};  // waits until the pool is there
  std::vector<std::string> without = {};          // ids of patches that are left out
  bool off = false;                               // all memory layers give nothing
};

// A slot that a token rested on.
struct TokenSlot {
  std::int64_t layer = 0, head = 0, slot = 0;
  double weight = 0;                      // softmax weight of the read
  std::optional<std::string> patch = {};  // that wrote the row; none: the base
};

struct Job {                              // one sequence
  std::vector<std::int32_t> prompt = {};  // as it is: special tokens are there
  GenerateOptions options = {};
  MemoryView memory = {};
  std::int64_t explain_slots = 0;  // of each token, the slots of greatest weight; 0: none
};

// Of a sequence, in this order, each from the engine's thread, which it must not hold up.
struct Listener {
  virtual ~Listener() = default;
  // The confidence that a patch taught what it is asked, where any says what it taught; before
  // started().
  virtual void judged(double /*memory_confidence*/) {}
  // It has its place; before, it was in the queue.
  virtual void started(std::uint64_t pool_version, std::int64_t cached_prompt_tokens) = 0;
  // What a step made of it; with `finish`, the last call. DecodedToken::sequence means nothing
  // here.
  virtual void token(const DecodedToken& token, const std::vector<TokenSlot>& slots) = 0;
};

// What /metrics tells, and how full the engine is.
struct EngineCounters {
  std::int64_t running = 0, waiting = 0;                 // sequences
  double cache_usage = 0;                                // of the keys' and values' bytes, 0 to 1
  std::int64_t prompt_tokens = 0, generated_tokens = 0;  // since the start
  std::int64_t prefix_queries = 0, prefix_hits = 0;      // tokens of prompts
  std::int64_t drafted_tokens = 0, accepted_tokens = 0;  // of speculation
  double prompt_seconds = 0, decode_seconds = 0;         // of steps
  std::optional<std::string> trouble = {};               // health is degraded: why
};

// Facts that a job teaches beside serving.
struct TeachRequest {
  std::string facts_jsonl = {};                // as read_new_facts() takes them
  std::optional<std::string> background = {};  // text to rehearse, JSONL or plain
  // The patch is applied only where all hold; absent: not asked.
  std::optional<double> least_recall = {}, least_kept = {}, most_perplexity_ratio = {};
  std::string note = {};
};

struct TeachStatus {
  std::string id = {};
  std::string state =
      {};  // "queued", "learning", "checking", "applied", "rejected", "cancelled", "failed"
  std::int64_t step = 0, steps = 0, recalled = 0, phrasings = 0;
  std::optional<double> recall = {}, unseen_recall = {}, kept = {}, perplexity_ratio = {};
  std::optional<std::string> patch = {};  // its id, once there is one
  std::optional<std::uint64_t> pool_version = {};
  std::string message = {};  // of "rejected" and "failed": why
  bool is_over() const {
    return state == "applied" || state == "rejected" || state == "cancelled" || state == "failed";
  }
};

// A question whose answer is asked again after each edit.
struct Canary {
  std::string id = {}, prompt = {}, answer = {};
  bool rolls_back = false;           // an edit that changes the answer is taken back
  std::optional<bool> is_well = {};  // when last asked
  std::string last_answer = {};
};

// The pool's store behind the model. Functions may be called from several threads. Edits, teach()
// and explain() may block; what only tells of the state waits for none of them. Edits are durable
// when they return, and every sequence that begins afterwards has them. A store that cannot write
// throws Refusal(503); Error says that the patch is wrong.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual Snapshot snapshot() const = 0;
  virtual std::string health() const = 0;  // "good", or why it takes no edit
  // `if_version`: Refusal(412) where the pool is at another one.
  virtual Committed apply(const Patch& patch, std::optional<std::uint64_t> if_version) = 0;
  virtual Committed rollback(const std::string& id, std::optional<std::uint64_t> if_version) = 0;
  virtual Committed reapply(const std::string& id, std::optional<std::uint64_t> if_version) = 0;
  virtual Committed keep(const std::string& id, std::optional<std::uint64_t> if_version) = 0;
  virtual std::vector<std::uint64_t> held_versions() const = 0;  // that MemoryView may name

  virtual TeachStatus teach(TeachRequest request) = 0;  // queued
  virtual std::vector<TeachStatus> teach_jobs() const = 0;
  virtual std::optional<TeachStatus> teach_job(const std::string& id) const = 0;
  virtual bool cancel_teach(const std::string& id) = 0;

  // What `memlayers explain --json` gives, as JSON text.
  virtual std::string explain(const std::string& prompt, const std::optional<std::string>& answer,
                              std::int64_t top, const MemoryView& memory) = 0;

  virtual std::vector<Canary> canaries() const = 0;
  virtual void set_canary(Canary canary) = 0;  // replaces the one of the same id
  virtual bool remove_canary(const std::string& id) = 0;
};

// A model that answers many requests at once. Functions may be called from several threads and do
// not wait for a step.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual const ChatTemplate* chat_template() const = 0;  // null: the model has none
  virtual const std::string& model_id() const = 0;
  virtual std::int64_t context() const = 0;        // tokens of prompt and answer together
  virtual std::string weights_digest() const = 0;  // XXH3-128 in hex of what does not change

  // Those that end an answer unless ignore_eos says otherwise: the model's, else the tokenizer's.
  virtual std::vector<std::int32_t> end_tokens() const = 0;

  // Puts them into the queue, all or none; their numbers. All of one call are made with one version
  // of the pool. Throws Refusal: 400 for what cannot be
  // answered (naming the field), 404 for a version or patch that is not held, 429 where the queue
  // is full, 503 while draining.
  virtual std::vector<std::int64_t> submit(
      std::vector<std::pair<Job, std::shared_ptr<Listener>>> jobs) = 0;
  // Ends them within one step, wherever they are; nothing more is heard of them. Numbers of
  // sequences that have ended are fine; a Listener may call it.
  virtual void cancel(const std::vector<std::int64_t>& jobs) = 0;

  virtual EngineCounters counters() const = 0;
  virtual Memory* memory() = 0;  // null: a model without memory layers
};

}  // namespace memlayers::api
