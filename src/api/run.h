// SPDX-License-Identifier: Apache-2.0
// A request that the engine works on: its sequences, what comes of them, and its client, which may
// leave at any time.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/answer.h"
#include "api/shared.h"
#include "http/server.h"

namespace memlayers::api {

class Run : public std::enable_shared_from_this<Run> {
 public:
  Run(std::shared_ptr<Shared> shared, std::shared_ptr<http::Exchange> exchange, Asked asked);
  virtual ~Run() = default;
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;
  // Gives the engine its sequences. Throws what Engine::submit() throws. Once.
  void start();

 protected:
  virtual void submitted() {}  // by start(), without the lock
  // From the engine's thread, one at a time, under the lock; none after over().
  virtual void started(Choice& /*choice*/) {}
  virtual void took(Choice& /*choice*/) {}  // text or tokens came, or it ended
  virtual void over() = 0;                  // all ended, or failure() says why not

  const std::optional<Refusal>& failure() const { return failure_; }
  std::optional<std::uint64_t> pool_version() const { return pool_version_; }
  std::vector<Choice>& choices() { return choices_; }
  bool has_started() const { return has_started_; }
  void client_left() { is_gone_ = true; }  // noticed while writing
  bool is_gone() const { return is_gone_; }

  // Members of every answer beside choices.
  Json head(const std::string& id, const char* object) const;
  Json memory(std::uint64_t version) const;  // of them; where the pool's version is known
  http::Fields headers() const;              // the pool's version, where it is known
  Json usage() const;
  std::unique_ptr<AnswerShape> shape() const;
  void log() const;

  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<http::Exchange> exchange_;
  const Asked asked_;
  std::mutex mutex_;  // of all that follows and what derived classes have

 private:
  class ChoiceListener;
  struct Times {
    std::optional<Clock::time_point> last = {};
    std::int64_t cached = 0;  // tokens of its prompt
  };
  void heard_judged(std::size_t choice, double confidence);
  void heard_started(std::size_t choice, std::uint64_t version, std::int64_t cached);
  void heard_token(std::size_t choice, const DecodedToken& token,
                   const std::vector<TokenSlot>& slots);
  void take(Choice& choice, const DecodedToken& token, const std::vector<TokenSlot>& slots);
  void note_times(Times& times);
  void leave();            // the client is gone
  void cancel_unneeded();  // where it has left, or a sequence failed

  const Clock::time_point came_ = Clock::now();
  const std::int64_t created_;
  std::vector<Choice> choices_;
  std::vector<Times> times_;
  std::vector<std::int64_t> jobs_;
  std::optional<std::uint64_t> pool_version_;
  std::optional<Refusal> failure_;
  std::optional<double> first_token_s_;
  std::size_t open_ = 0;  // sequences that go on
  bool has_started_ = false, is_gone_ = false, is_over_ = false, is_cancelled_ = false;
};

// Answers in one piece.
std::shared_ptr<Run> whole_run(std::shared_ptr<Shared> shared,
                               std::shared_ptr<http::Exchange> exchange, Asked asked);
// Answers in events.
std::shared_ptr<Run> streamed_run(std::shared_ptr<Shared> shared,
                                  std::shared_ptr<http::Exchange> exchange, Asked asked);

}  // namespace memlayers::api
