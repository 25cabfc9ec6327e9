// SPDX-License-Identifier: Apache-2.0
#include "serve/canaries.h"

#include <cctype>
#include <string_view>
#include <utility>

#include "serve/ask.h"

namespace memlayers::serve {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) + 1 - begin);
}

bool is_well(std::string_view said, std::string_view wanted) {
  said = trimmed(said);
  wanted = trimmed(wanted);
  if (!said.starts_with(wanted)) return false;
  if (said.size() == wanted.size()) return true;
  const auto next = static_cast<unsigned char>(said[wanted.size()]);
  return next < 0x80 && std::isalnum(next) == 0;
}

}  // namespace

Canaries::Canaries(const Generator& generator, Scheduler& scheduler, io::FileSystem& files,
                   std::string path, Rollback rollback)
    : generator_(generator),
      scheduler_(scheduler),
      files_(files),
      path_(std::move(path)),
      rollback_(std::move(rollback)),
      canaries_(read_canaries(files_, path_)),
      rounds_(canaries_.empty() ? 0 : 1),
      thread_([this] { run(); }) {}

Canaries::~Canaries() { stop(); }

void Canaries::stop() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

CanariesById Canaries::by_id() const {
  const std::lock_guard lock(mutex_);
  return canaries_;
}

std::vector<api::Canary> Canaries::all() const {
  std::vector<api::Canary> list;
  for (const auto& [id, canary] : by_id()) list.push_back(canary);
  return list;
}

void Canaries::store(const CanariesById& canaries) {
  try {
    write_canaries(files_, path_, canaries);
  } catch (const Error& error) {
    throw api::Refusal(503, "canaries_not_stored", error.what());
  }
}

void Canaries::set(api::Canary canary) {
  const std::lock_guard storing(storing_);
  canary.is_well.reset();
  canary.last_answer.clear();
  CanariesById all = by_id();
  all[canary.id] = canary;
  store(all);
  {
    const std::lock_guard lock(mutex_);
    rounds_.push_back({.canary = canary.id, .patch = {}, .version = {}});
    canaries_[canary.id] = std::move(canary);
  }
  changed_.notify_all();
}

bool Canaries::remove(const std::string& id) {
  const std::lock_guard storing(storing_);
  CanariesById all = by_id();
  if (all.erase(id) == 0) return false;
  store(all);
  const std::lock_guard lock(mutex_);
  canaries_.erase(id);
  return true;
}

void Canaries::ask(const std::optional<std::string>& patch, std::uint64_t version) {
  {
    const std::lock_guard lock(mutex_);
    if (canaries_.empty()) return;
    rounds_.push_back({.canary = {}, .patch = patch, .version = version});
  }
  changed_.notify_all();
}

void Canaries::run() {
  while (true) {
    Round round;
    std::vector<api::Canary> asked;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return is_over_ || !rounds_.empty(); });
      if (is_over_) return;
      round = std::move(rounds_.front());
      rounds_.pop_front();
      for (const auto& [id, canary] : canaries_) {
        if (!round.canary || *round.canary == id) asked.push_back(canary);
      }
    }
    bool takes_back = false;
    for (const api::Canary& canary : asked) {
      if (is_over_) return;
      ask_one(canary, round, takes_back);
    }
    if (!takes_back || !round.patch) continue;
    try {
      rollback_(*round.patch);
    } catch (const Error& error) {  // kept meanwhile, or the store stopped
      scheduler_.report_trouble("a canary wants patch " + *round.patch +
                                " rolled back: " + error.what());
    }
  }
}

void Canaries::ask_one(const api::Canary& canary, const Round& round, bool& takes_back) {
  // A model may write an answer in smaller tokens than a tokenizer, and goes on behind it.
  constexpr std::int64_t kMore = 8;
  const auto length =
      kMore + static_cast<std::int64_t>(generator_.answer_tokens(canary.answer).size());
  const std::vector<std::int32_t> prompt = generator_.question_tokens(canary.prompt);
  std::optional<std::string> said =
      serve::ask(scheduler_, prompt, length, {.version = round.version}, is_over_);
  if (!said && round.version && !is_over_) {  // not held any more
    said = serve::ask(scheduler_, prompt, length, {}, is_over_);
  }
  if (!said) return;
  const std::lock_guard lock(mutex_);
  const auto found = canaries_.find(canary.id);
  if (found == canaries_.end() || found->second.prompt != canary.prompt ||
      found->second.answer != canary.answer) {
    return;  // another one by now
  }
  api::Canary& now = found->second;
  const bool was_well = now.is_well == true;
  now.is_well = is_well(*said, now.answer);
  now.last_answer = *said;
  if (now.rolls_back && was_well && !*now.is_well) takes_back = true;
}

}  // namespace memlayers::serve
