// SPDX-License-Identifier: Apache-2.0
// What the scheduler's own thread does.
#include <algorithm>
#include <utility>

#include "memlayers/error.h"
#include "serve/scheduler.h"

namespace memlayers::serve {
namespace {

constexpr std::chrono::milliseconds kLookForVersions{50};

}  // namespace

bool Scheduler::wait() {
  std::unique_lock lock(mutex_);
  is_busy_ = !sequences_.empty();
  if (!is_busy_ && queue_.empty()) idle_.notify_all();
  const auto has_work = [&] {
    return is_stopping_ || has_cancelled_ || pool_changed_ || !sequences_.empty() ||
           std::ranges::any_of(queue_,
                               [](const Sequence& each) { return each.memory.has_value(); });
  };
  if (queue_.empty()) {
    changed_.wait(lock, [&] { return has_work() || !queue_.empty(); });
  } else {
    changed_.wait_for(lock, kLookForVersions, has_work);
  }
  pool_changed_ = false;
  is_busy_ = true;
  return !is_stopping_;
}

void Scheduler::let_go() {
  {
    const std::lock_guard lock(mutex_);
    if (!std::exchange(has_cancelled_, false)) return;
  }
  std::erase_if(sequences_, [&](const auto& entry) {
    const auto& [number, sequence] = entry;
    if (!*sequence.is_cancelled) return false;
    decoder_.leave(number);
    const std::lock_guard lock(mutex_);
    --counters_.running;
    claimed_bytes_ -= sequence.bytes;
    return true;
  });
}

// Those that waited for a version of the pool which is there now.
void Scheduler::resolve() {
  std::map<std::int64_t, api::MemoryView> views;  // by call: all of one get one version
  {
    const std::lock_guard lock(mutex_);
    for (const Sequence& each : queue_) {
      if (!each.memory) views.emplace(each.call, each.job.memory);
    }
  }
  if (views.empty()) return;
  follow();
  for (const auto& [call, view] : views) {
    std::optional<SequenceMemory> memory;
    std::string refusal;
    try {
      memory = views_.resolve(view);
    } catch (const Error& error) {  // a patch that is left out went away meanwhile
      memory.emplace();
      refusal = error.what();
    }
    const std::lock_guard lock(mutex_);
    for (Sequence& each : queue_) {
      if (each.call != call || !memory) continue;
      each.memory = memory;
      each.memory->slots = each.job.explain_slots;
      each.refusal = refusal;
    }
  }
}

void Scheduler::admit() {
  resolve();
  while (static_cast<std::int64_t>(sequences_.size()) < options_.sequences) {
    Sequence next;
    {
      const std::lock_guard lock(mutex_);
      const auto found = std::ranges::find_if(
          queue_, [](const Sequence& each) { return each.memory.has_value(); });
      if (found == queue_.end()) return;
      next = std::move(*found);
      queue_.erase(found);
      counters_.waiting = static_cast<std::int64_t>(queue_.size());
    }
    if (admit_one(next)) continue;
    const std::lock_guard lock(mutex_);
    if (!*next.is_cancelled) queue_.push_front(std::move(next));
    counters_.waiting = static_cast<std::int64_t>(queue_.size());
    return;
  }
}

// False: there is no place for it now.
bool Scheduler::admit_one(Sequence& next) {
  if (*next.is_cancelled) return true;
  if (!next.refusal.empty()) {
    fail(next, next.refusal, /*is_fault=*/false);
    return true;
  }
  judge(next);  // one that waited for its version; the others are
  std::int64_t number = 0;
  try {
    number = decoder_.join(next.job.prompt, next.job.options, *next.memory);
  } catch (const NoPlace& error) {
    if (!sequences_.empty()) return false;
    fail(next, error.what(), /*is_fault=*/false);
    return true;
  } catch (const std::exception& error) {
    fail(next, error.what(), /*is_fault=*/true);
    return true;
  }
  const auto length = static_cast<std::int64_t>(next.job.prompt.size());
  const std::int64_t cached = decoder_.cached_tokens(number);
  next.prompt_left = length - cached;
  next.since = Clock::now();
  {
    const std::lock_guard lock(mutex_);
    ++counters_.running;
    claimed_bytes_ += next.bytes;
    counters_.prompt_tokens += length;
    if (options_.keeps_prefixes) {
      counters_.prefix_queries += length;
      counters_.prefix_hits += cached;
    }
  }
  const std::uint64_t version = decoder_.pool_version(number).value_or(0);
  const Sequence& joined = sequences_[number] = std::move(next);
  tell(joined, [&](api::Listener& listener) {
    if (joined.confidence) listener.judged(*joined.confidence);
    listener.started(version, cached);
  });
  return true;
}

// What the next step takes of prompts, and how many sequences give tokens.
std::pair<std::int64_t, std::int64_t> Scheduler::planned_tokens() {
  const std::int64_t answering = std::ranges::count_if(
      sequences_, [](const auto& entry) { return entry.second.prompt_left == 0; });
  const std::int64_t most = piece_.beside(answering);
  decoder_.set_prefill_tokens(most);
  std::int64_t of_prompts = 0;
  for (auto& [number, sequence] : sequences_) {
    const std::int64_t taken = std::min(sequence.prompt_left, most - of_prompts);
    of_prompts += taken;
    sequence.prompt_left -= taken;
  }
  return {of_prompts, answering};
}

void Scheduler::step() {
  const auto [of_prompts, answering] = planned_tokens();
  const Clock::time_point begin = Clock::now();
  std::vector<DecodedToken> made;
  try {
    made = decoder_.step();
  } catch (const std::exception& error) {  // none that is known: no sequence can go on
    for (const auto& [number, sequence] : sequences_) {
      decoder_.leave(number);
      made.push_back({.sequence = number,
                      .finish = FinishReason::kError,
                      .error = error.what(),
                      .is_fault = true});
    }
  }
  const double took = std::chrono::duration<double>(Clock::now() - begin).count();
  piece_.took(took, of_prompts, answering);
  const double share = static_cast<double>(of_prompts) /
                       static_cast<double>(std::max<std::int64_t>(1, of_prompts + answering));
  {
    const std::lock_guard lock(mutex_);
    counters_.prompt_seconds += took * share;
    counters_.decode_seconds += took * (1 - share);
    counters_.drafted_tokens = decoder_.drafted_tokens();
    counters_.accepted_tokens = decoder_.accepted_tokens();
    for (const DecodedToken& token : made) counters_.generated_tokens += token.token ? 1 : 0;
  }
  for (const DecodedToken& token : made) deliver(token);
}

void Scheduler::deliver(const DecodedToken& token) {
  const auto found = sequences_.find(token.sequence);
  if (found == sequences_.end()) return;
  const Sequence& sequence = found->second;
  if (token.is_fault) report_trouble(token.error);
  std::vector<api::TokenSlot> slots;
  const std::optional<Snapshot>& rows = sequence.memory->rows;
  for (const ReadSlot& read : token.slots) {
    slots.push_back({read.layer, read.head, read.slot, read.weight,
                     rows ? rows->writer_of(read.slot) : std::nullopt});
  }
  if (!token.finish) {
    tell(sequence, [&](api::Listener& listener) { listener.token(token, slots); });
    return;
  }
  // Whoever hears of the end finds the place free.
  const Sequence ended = std::move(found->second);
  sequences_.erase(found);
  {
    const std::lock_guard lock(mutex_);
    open_.erase(ended.id);
    --counters_.running;
    claimed_bytes_ -= ended.bytes;
    constexpr double kNew = 0.1;
    const double took = std::chrono::duration<double>(Clock::now() - ended.since).count();
    seconds_a_sequence_ += kNew * (took - seconds_a_sequence_);
  }
  tell(ended, [&](api::Listener& listener) { listener.token(token, slots); });
}

// Nothing is told to one that was cancelled, and one whose listener throws is.
void Scheduler::tell(const Sequence& sequence, const std::function<void(api::Listener&)>& call) {
  if (*sequence.is_cancelled) return;
  try {
    call(*sequence.listener);
  } catch (const std::exception&) {
    cancel({sequence.id});
  }
}

// Of one that is in no list any more.
void Scheduler::fail(const Sequence& sequence, const std::string& error, bool is_fault) {
  if (is_fault) report_trouble(error);
  {
    const std::lock_guard lock(mutex_);
    open_.erase(sequence.id);
  }
  tell(sequence, [&](api::Listener& listener) {
    listener.token({.finish = FinishReason::kError, .error = error, .is_fault = is_fault}, {});
  });
}

void Scheduler::run() {
  while (wait()) {
    let_go();
    admit();
    if (!sequences_.empty()) step();
  }
  std::deque<Sequence> left;
  {
    const std::lock_guard lock(mutex_);
    left = std::exchange(queue_, {});
    counters_.waiting = counters_.running = claimed_bytes_ = 0;
  }
  for (auto& [number, sequence] : std::exchange(sequences_, {})) {
    decoder_.leave(number);
    left.push_back(std::move(sequence));
  }
  for (const Sequence& sequence : left) {
    fail(sequence, "the server ended before the answer did", /*is_fault=*/false);
  }
  const std::lock_guard lock(mutex_);
  is_busy_ = false;
  idle_.notify_all();
}

}  // namespace memlayers::serve
