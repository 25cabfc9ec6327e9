// SPDX-License-Identifier: Apache-2.0
#include "serve/scheduler.h"

#include <torch/types.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::serve {
namespace {

constexpr double kTroubleSeconds = 60;  // that trouble is told after it was last seen

double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

std::int64_t cache_bytes_of(const EngineOptions& options, const Llama& model,
                            std::int64_t context) {
  if (options.cache_bytes) return *options.cache_bytes;
  const std::int64_t half_of_memory = ::sysconf(_SC_PHYS_PAGES) / 2 * ::sysconf(_SC_PAGESIZE);
  return std::max(KvCache::bytes_of(*model, context),
                  std::min(options.sequences * KvCache::bytes_of(*model, context), half_of_memory));
}

std::int64_t context_of(const EngineOptions& options, const ModelConfig& config) {
  return std::min(options.context.value_or(config.context), config.context);
}

// "max_tokens" of "max_tokens: expected ...".
std::optional<std::string> field_of(const std::string& sentence) {
  const auto end = sentence.find(':');
  if (end == std::string::npos || sentence.find(' ') < end) return std::nullopt;
  return sentence.substr(0, end);
}

bool is_same(const api::MemoryView& a, const api::MemoryView& b) {
  return a.version == b.version && a.min_version == b.min_version && a.without == b.without &&
         a.off == b.off;
}

}  // namespace

void EngineOptions::validate() const {
  const auto check = [](bool is_right, const char* field, const char* wanted, std::int64_t got) {
    if (is_right) return;
    throw Error(std::string(field) + ": expected " + wanted + ", got " + std::to_string(got));
  };
  check(sequences >= 1, "slots", "at least 1", sequences);
  check(waiting >= 0, "queue", "0 or more", waiting);
  check(prefill_tokens >= 1, "prefill", "at least 1", prefill_tokens);
  if (!(slowdown == 0 || (slowdown > 1 && slowdown <= 1e6))) {
    throw Error("slowdown: expected a number above 1, or 0, got " + std::to_string(slowdown));
  }
  check(context.value_or(1) >= 1, "context", "at least 1", context.value_or(1));
  check(cache_bytes.value_or(1) >= 1, "cache_bytes", "at least 1", cache_bytes.value_or(1));
  check(drafted_tokens >= 0, "speculate", "0 or more", drafted_tokens);
  check(teach_niceness >= 0 && teach_niceness <= 19, "teach_niceness", "0 to 19", teach_niceness);
  learn.validate();
  check(held_versions >= 1, "versions", "at least 1", static_cast<std::int64_t>(held_versions));
}

Scheduler::Scheduler(Llama model, std::shared_ptr<const Tokenizer> tokenizer, PoolViews& views,
                     const EngineOptions& options)
    : options_(options),
      context_(context_of(options, model->config())),
      cache_bytes_(cache_bytes_of(options, model, context_)),
      views_(views),
      model_(model),
      decoder_(model, std::move(tokenizer),
               {.prefill_tokens = options.prefill_tokens,
                .cache_bytes = cache_bytes_,
                .sequences = options.sequences,
                .keeps_prefixes = options.keeps_prefixes,
                .drafted_tokens = options.drafted_tokens}),
      piece_(options.prefill_tokens, options.slowdown),
      thread_([this] { run(); }) {}

Scheduler::~Scheduler() { stop(); }

// As the decoder would, but before it waits; and what is longer than this engine takes.
void Scheduler::check(api::Job& job, std::size_t index, std::size_t jobs) const {
  const std::string which = jobs == 1 ? "prompt" : "prompt " + std::to_string(index);
  const auto length = static_cast<std::int64_t>(job.prompt.size());
  if (length == 0) {
    throw api::Refusal(400, "empty_prompt", which + ": expected at least one token, got none",
                       "prompt");
  }
  if (length > context_) {
    throw api::Refusal(400, "context_length_exceeded",
                       which + ": expected at most " + std::to_string(context_) +
                           " tokens, the model's context, got " + std::to_string(length),
                       "prompt");
  }
  const std::int64_t vocab = model_->config().vocab_size;
  for (const std::int32_t token : job.prompt) {
    if (token >= 0 && token < vocab) continue;
    throw api::Refusal(400, "invalid_token",
                       which + ": expected token ids in [0, " + std::to_string(vocab) + "), got " +
                           std::to_string(token),
                       "prompt");
  }
  try {
    job.options.validate();
  } catch (const Error& error) {
    throw api::Refusal(400, "invalid_value", error.what(), field_of(error.what()));
  }
  job.options.max_tokens = std::min(job.options.max_tokens, context_ - length);
  const std::int64_t bytes = KvCache::bytes_of(*model_, length + job.options.max_tokens);
  if (bytes <= cache_bytes_) return;
  throw api::Refusal(400, "context_length_exceeded",
                     which + ": expected a prompt and answer whose keys and values take at most " +
                         std::to_string(cache_bytes_) + " bytes, got " + std::to_string(bytes) +
                         " for " + std::to_string(length) + " and " +
                         std::to_string(job.options.max_tokens) + " tokens",
                     "max_tokens");
}

double Scheduler::seconds_until_a_place() const {
  const double ahead = static_cast<double>(queue_.size()) + 1;
  return std::clamp(seconds_a_sequence_ * ahead / static_cast<double>(options_.sequences), 1.0,
                    60.0);
}

api::Refusal Scheduler::full(std::size_t jobs) const {
  api::Refusal refusal(429, "queue_full",
                       "expected at most " + std::to_string(options_.waiting) +
                           " sequences that wait, got " + std::to_string(queue_.size() + jobs) +
                           " with this request");
  refusal.retry_after_s = seconds_until_a_place();
  return refusal;
}

std::vector<std::int64_t> Scheduler::submit(Jobs jobs) {
  std::deque<Sequence> sequences;
  follow();  // who comes now sees the edits made so far, also those of another process
  std::optional<SequenceMemory> view;  // of the one before
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    auto& [job, listener] = jobs[i];
    check(job, i, jobs.size());
    Sequence& made = sequences.emplace_back();
    made.bytes = KvCache::bytes_of(
        *model_, static_cast<std::int64_t>(job.prompt.size()) + job.options.max_tokens);
    const bool is_as_before = i > 0 && is_same(sequences[i - 1].job.memory, job.memory);
    made.memory = is_as_before ? view : views_.resolve(job.memory);
    view = made.memory;
    if (made.memory) made.memory->slots = job.explain_slots;
    made.job = std::move(job);
    if (is_as_before && sequences[i - 1].job.prompt == made.job.prompt) {
      made.confidence = sequences[i - 1].confidence;
      made.is_judged = sequences[i - 1].is_judged;
      if (made.memory) made.memory->is_off = sequences[i - 1].memory->is_off;
    }
    judge(made);
    made.listener = std::move(listener);
    made.is_cancelled = std::make_shared<std::atomic<bool>>(false);
  }
  std::vector<std::int64_t> ids;
  {
    const std::lock_guard lock(mutex_);
    if (is_draining_ || is_stopping_) {
      api::Refusal refusal(503, "draining", "the server is being stopped");
      refusal.retry_after_s = 1;
      throw refusal;
    }
    // Those that find a place at once do not wait.
    const auto places =
        static_cast<std::size_t>(std::max<std::int64_t>(0, options_.sequences - counters_.running));
    const std::size_t most = static_cast<std::size_t>(options_.waiting) + places;
    if (queue_.size() + sequences.size() > most) throw full(sequences.size());
    const std::int64_t call = next_id_;
    for (Sequence& sequence : sequences) {
      sequence.id = next_id_++;
      sequence.call = call;
      ids.push_back(sequence.id);
      open_[sequence.id] = sequence.is_cancelled;
      queue_.push_back(std::move(sequence));
    }
    counters_.waiting = static_cast<std::int64_t>(queue_.size());
  }
  changed_.notify_all();
  return ids;
}

void Scheduler::judge_by(Generator::Judge judge, std::optional<double> least) {
  judge_ = std::move(judge);
  least_ = least;
}

void Scheduler::judge(Sequence& sequence) {
  if (sequence.is_judged || !judge_ || !sequence.memory) return;
  sequence.is_judged = true;
  if (sequence.memory->is_off || !sequence.memory->rows) return;
  try {
    sequence.confidence = judge_(sequence.job.prompt, *sequence.memory->rows);
  } catch (const std::exception& error) {  // rows that the disk does not give: the answer says so
    report_trouble(error.what());
  }
  if (sequence.confidence && least_ && *sequence.confidence < *least_) {
    sequence.memory->is_off = true;
  }
}

void Scheduler::follow() {
  try {
    views_.refresh();
  } catch (const Error& error) {  // answers go on with what was there
    report_trouble(error.what());
  }
}

void Scheduler::cancel(const std::vector<std::int64_t>& jobs) {
  std::vector<Sequence> gone;  // whose listeners go without the lock
  {
    const std::lock_guard lock(mutex_);
    for (const std::int64_t id : jobs) {
      const auto found = open_.find(id);
      if (found == open_.end()) continue;
      *found->second = true;
      open_.erase(found);
      has_cancelled_ = true;
      const auto queued = std::ranges::find(queue_, id, &Sequence::id);
      if (queued == queue_.end()) continue;
      gone.push_back(std::move(*queued));
      queue_.erase(queued);
    }
    counters_.waiting = static_cast<std::int64_t>(queue_.size());
  }
  changed_.notify_all();
}

api::EngineCounters Scheduler::counters() const {
  const std::lock_guard lock(mutex_);
  api::EngineCounters now = counters_;
  now.cache_usage =
      std::min(1.0, static_cast<double>(claimed_bytes_) / static_cast<double>(cache_bytes_));
  if (!trouble_.empty() && seconds(Clock::now() - trouble_since_) < kTroubleSeconds) {
    now.trouble = trouble_;
  }
  return now;
}

void Scheduler::wake() {
  {
    const std::lock_guard lock(mutex_);
    pool_changed_ = true;
  }
  changed_.notify_all();
}

void Scheduler::report_trouble(const std::string& what) {
  const std::lock_guard lock(mutex_);
  trouble_ = what;
  trouble_since_ = Clock::now();
}

void Scheduler::drain() {
  const std::lock_guard lock(mutex_);
  is_draining_ = true;
}

bool Scheduler::wait_until_idle(double most_seconds) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, std::chrono::duration<double>(most_seconds),
                        [&] { return queue_.empty() && !is_busy_; });
}

void Scheduler::stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

}  // namespace memlayers::serve
