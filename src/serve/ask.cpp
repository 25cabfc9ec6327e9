// SPDX-License-Identifier: Apache-2.0
#include "serve/ask.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace memlayers::serve {
namespace {

class Answer final : public api::Listener {
 public:
  void started(std::uint64_t, std::int64_t) override {}
  void token(const DecodedToken& token, const std::vector<api::TokenSlot>&) override {
    const std::lock_guard lock(mutex_);
    text_ += token.text;
    if (!token.finish) return;
    is_over_ = true;
    has_failed_ = token.finish == FinishReason::kError;
    over_.notify_all();
  }
  bool wait(std::chrono::milliseconds most) {
    std::unique_lock lock(mutex_);
    return over_.wait_for(lock, most, [&] { return is_over_; });
  }
  std::optional<std::string> text() {
    const std::lock_guard lock(mutex_);
    if (has_failed_) return std::nullopt;
    return text_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable over_;
  std::string text_;
  bool is_over_ = false, has_failed_ = false;
};

}  // namespace

std::optional<std::string> ask(Scheduler& scheduler, std::vector<std::int32_t> prompt,
                               std::int64_t max_tokens, const api::MemoryView& memory,
                               const std::atomic<bool>& is_over) {
  constexpr std::chrono::milliseconds kLook{100};
  const auto answer = std::make_shared<Answer>();
  api::Job job{.prompt = std::move(prompt), .memory = memory};
  job.options.max_tokens = max_tokens;
  std::vector<std::int64_t> ids;
  try {
    ids = scheduler.submit({{std::move(job), answer}});
  } catch (const Error&) {
    return std::nullopt;
  }
  while (!answer->wait(kLook)) {
    if (!is_over) continue;
    scheduler.cancel(ids);
    return std::nullopt;
  }
  return answer->text();
}

}  // namespace memlayers::serve
