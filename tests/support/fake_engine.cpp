// SPDX-License-Identifier: Apache-2.0
#include "support/fake_engine.h"

#include <algorithm>

#include "io/utf8.h"
#include "support/store_testing.h"

namespace memlayers::testing {
namespace {

constexpr double kBestLogprob = -0.25;

// Of the token at a place: itself and those behind it, of which every third is more likely.
TokenLogprobs logprobs_of(std::int32_t token, std::int64_t top) {
  const bool is_best = token % 3 != 0;
  TokenLogprobs of{.token = token, .logprob = is_best ? kBestLogprob : 2 * kBestLogprob};
  std::vector<std::pair<std::int32_t, double>> ranked;
  if (is_best) ranked.emplace_back(token, kBestLogprob);
  for (std::int32_t i = 1; static_cast<std::int64_t>(ranked.size()) < top; ++i) {
    ranked.emplace_back((token + i) % 256, is_best ? kBestLogprob * (i + 1) : kBestLogprob * i);
  }
  ranked.resize(static_cast<std::size_t>(top));
  of.top = ranked;
  return of;
}

}  // namespace

std::string NamedLetters::token(std::int32_t id) const {
  if (id == kBos) return "<s>";
  if (id == kEos) return "</s>";
  return LetterTokenizer::token(id);
}

// --- Memory ---------------------------------------------------------------------------------

FakeMemory::FakeMemory(const std::string& folder)
    : store_([&] {
        SmallPool().write(io::posix(), folder);
        return Store::open(folder);
      }()) {}

void FakeMemory::check(std::optional<std::uint64_t> if_version) const {
  const std::uint64_t version = snapshot().version();
  if (!if_version || *if_version == version) return;
  constexpr int kPrecondition = 412;
  throw api::Refusal(kPrecondition, "version_mismatch",
                     "the pool is at version " + std::to_string(version));
}

Committed FakeMemory::apply(const Patch& patch, std::optional<std::uint64_t> if_version) {
  check(if_version);
  return store_.apply(patch);
}
Committed FakeMemory::rollback(const std::string& id, std::optional<std::uint64_t> if_version) {
  check(if_version);
  return store_.rollback(id);
}
Committed FakeMemory::reapply(const std::string& id, std::optional<std::uint64_t> if_version) {
  check(if_version);
  return store_.reapply(id);
}
Committed FakeMemory::keep(const std::string& id, std::optional<std::uint64_t> if_version) {
  check(if_version);
  return store_.keep(id);
}

api::TeachStatus FakeMemory::teach(api::TeachRequest request) {
  const std::lock_guard lock(mutex_);
  taught_.push_back(std::move(request));
  const std::string id = "job-" + std::to_string(taught_.size());
  return jobs_[id] = {.id = id, .state = "queued", .steps = 10};
}
std::vector<api::TeachStatus> FakeMemory::teach_jobs() const {
  const std::lock_guard lock(mutex_);
  std::vector<api::TeachStatus> all;
  for (const auto& [id, job] : jobs_) all.push_back(job);
  return all;
}
std::optional<api::TeachStatus> FakeMemory::teach_job(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  return found == jobs_.end() ? std::nullopt : std::optional(found->second);
}
bool FakeMemory::cancel_teach(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end() || found->second.is_over()) return false;
  found->second.state = "cancelled";
  return true;
}
std::string FakeMemory::explain(const std::string& prompt, const std::optional<std::string>& answer,
                                std::int64_t top, const api::MemoryView& memory) {
  return R"({"prompt":")" + prompt + R"(","answer":")" + answer.value_or("own") + R"(","top":)" +
         std::to_string(top) + R"(,"off":)" + (memory.off ? "true" : "false") + "}";
}
std::vector<api::Canary> FakeMemory::canaries() const {
  const std::lock_guard lock(mutex_);
  std::vector<api::Canary> all;
  for (const auto& [id, canary] : canaries_) all.push_back(canary);
  return all;
}
void FakeMemory::set_canary(api::Canary canary) {
  const std::lock_guard lock(mutex_);
  canary.last_answer = "ok";
  canary.is_well = canary.answer == canary.last_answer;
  canaries_[canary.id] = canary;
}
bool FakeMemory::remove_canary(const std::string& id) {
  const std::lock_guard lock(mutex_);
  return canaries_.erase(id) > 0;
}
void FakeMemory::set_job(const api::TeachStatus& status) {
  const std::lock_guard lock(mutex_);
  jobs_[status.id] = status;
}
std::vector<api::TeachRequest> FakeMemory::taught() const {
  const std::lock_guard lock(mutex_);
  return taught_;
}

// --- Engine ---------------------------------------------------------------------------------

std::vector<std::int64_t> FakeEngine::submit(
    std::vector<std::pair<api::Job, std::shared_ptr<api::Listener>>> jobs) {
  const std::lock_guard lock(mutex_);
  if (static_cast<std::int64_t>(sequences_.size() + jobs.size()) > places + queue) {
    constexpr int kTooMany = 429;
    api::Refusal refusal(kTooMany, "queue_full", "the queue is full");
    refusal.retry_after_s = 1.5;
    throw refusal;
  }
  std::vector<std::int64_t> numbers;
  for (auto& [job, listener] : jobs) {
    const std::string text = tokenizer_.decode(job.prompt);
    std::string answer = " ok";
    for (const auto& [prompt, said] : answers_) {
      if (text.ends_with(prompt)) answer = said;
    }
    jobs_.push_back(job);
    numbers.push_back(next_);
    prompt_tokens_ += static_cast<std::int64_t>(job.prompt.size());
    sequences_.push_back(std::make_shared<Sequence>(
        Sequence{next_++, std::move(job), std::move(listener), std::move(answer)}));
  }
  return numbers;
}

void FakeEngine::cancel(const std::vector<std::int64_t>& jobs) {
  const std::lock_guard lock(mutex_);
  cancelled_.insert(jobs.begin(), jobs.end());
}

api::EngineCounters FakeEngine::counters() const {
  const std::lock_guard lock(mutex_);
  const auto all = static_cast<std::int64_t>(sequences_.size());
  return {.running = std::min(all, places),
          .waiting = std::max<std::int64_t>(all - places, 0),
          .cache_usage = 0.5,
          .prompt_tokens = prompt_tokens_,
          .generated_tokens = generated_,
          .prompt_seconds = 2,
          .decode_seconds = 4,
          .trouble = trouble};
}

std::vector<api::Job> FakeEngine::jobs() const {
  const std::lock_guard lock(mutex_);
  return jobs_;
}

std::size_t FakeEngine::sequences() const {
  const std::lock_guard lock(mutex_);
  return sequences_.size();
}

bool FakeEngine::step() {
  std::vector<std::shared_ptr<Sequence>> now;
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(sequences_, [&](const auto& s) { return cancelled_.contains(s->number); });
    for (const auto& sequence : sequences_) {
      if (static_cast<std::int64_t>(now.size()) < places) now.push_back(sequence);
    }
    generated_ += static_cast<std::int64_t>(now.size());
  }
  for (const auto& sequence : now) {
    if (!sequence->has_started) {
      sequence->has_started = true;
      sequence->listener->started(memory_ ? memory_->snapshot().version() : version, 1);
    }
    const DecodedToken token = advance(*sequence);
    std::vector<api::TokenSlot> slots;
    if (sequence->job.explain_slots > 0) {
      slots = {{.layer = 1, .head = 0, .slot = 7, .weight = 0.75, .patch = "p1"}};
    }
    sequence->listener->token(token, slots);
    if (!token.finish) continue;
    const std::lock_guard lock(mutex_);
    std::erase(sequences_, sequence);
  }
  return !now.empty();
}

std::optional<std::int32_t> FakeEngine::next_token(const Sequence& sequence) const {
  if (sequence.said < sequence.answer.size()) {
    return static_cast<unsigned char>(sequence.answer[sequence.said]);
  }
  return NamedLetters::kEos;
}

// Whole characters, and nothing that may be the beginning of a stop string.
std::string FakeEngine::certain_text(Sequence& sequence, bool is_last, bool& is_stopped) const {
  std::string& held = sequence.held;
  std::size_t cut = std::string::npos;
  for (const std::string& stop : sequence.job.options.stop) cut = std::min(cut, held.find(stop));
  if (cut != std::string::npos) {
    is_stopped = true;
    return held.substr(0, cut);
  }
  std::size_t certain = is_last ? held.size() : io::valid_utf8_bytes(held);
  for (std::size_t begin = 0; begin < certain && !is_last; ++begin) {
    for (const std::string& stop : sequence.job.options.stop) {
      if (stop.starts_with(held.substr(begin))) certain = begin;
    }
  }
  std::string text = held.substr(0, certain);
  held.erase(0, certain);
  return text;
}

DecodedToken FakeEngine::advance(Sequence& sequence) const {
  DecodedToken to;
  const GenerateOptions& options = sequence.job.options;
  const std::int64_t top = options.logprobs.value_or(0);
  if (sequence.said == 0 && options.prompt_logprobs) {
    to.prompt_logprobs.push_back({.token = sequence.job.prompt[0]});
    for (std::size_t i = 1; i < sequence.job.prompt.size(); ++i) {
      to.prompt_logprobs.push_back(logprobs_of(sequence.job.prompt[i], top));
    }
  }
  if (fails_at && *fails_at == static_cast<std::int64_t>(sequence.said)) {
    return {.finish = FinishReason::kError, .error = "layer 2: logits that are no numbers"};
  }
  if (options.max_tokens == 0) {
    to.finish = FinishReason::kLength;
    return to;
  }
  const std::int32_t token = *next_token(sequence);
  ++sequence.said;
  to.token = token;
  if (options.logprobs) to.logprobs = logprobs_of(token, top);
  if (token == NamedLetters::kEos && !options.ignore_eos) {
    to.is_end = true;
    to.finish = FinishReason::kStop;
  } else if (token != NamedLetters::kEos) {
    sequence.held += static_cast<char>(token);
  }
  if (static_cast<std::int64_t>(sequence.said) == options.max_tokens && !to.finish) {
    to.finish = FinishReason::kLength;
  }
  bool is_stopped = false;
  to.text = certain_text(sequence, to.finish.has_value(), is_stopped);
  if (is_stopped) to.finish = FinishReason::kStop;
  return to;
}

}  // namespace memlayers::testing
