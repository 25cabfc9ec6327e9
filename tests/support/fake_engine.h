// SPDX-License-Identifier: Apache-2.0
// An engine whose answers can be foretold: tokens are bytes, and what it says to a prompt stands in
// a table. It goes a step when a test says so.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "api/engine.h"
#include "text/letter_tokenizer.h"

namespace memlayers::testing {

class NamedLetters : public text::LetterTokenizer {
 public:
  std::string token(std::int32_t id) const override;  // "<s>", "</s>", else the byte
};

// The memory of a FakeEngine over a store on the disk, small enough to be written anew each time.
class FakeMemory : public api::Memory {
 public:
  explicit FakeMemory(const std::string& folder);
  Snapshot snapshot() const override { return store_.snapshot(); }
  std::string health() const override { return store_.health(); }
  Committed apply(const Patch& patch, std::optional<std::uint64_t> if_version) override;
  Committed rollback(const std::string& id, std::optional<std::uint64_t> if_version) override;
  Committed reapply(const std::string& id, std::optional<std::uint64_t> if_version) override;
  Committed keep(const std::string& id, std::optional<std::uint64_t> if_version) override;
  std::vector<std::uint64_t> held_versions() const override { return {snapshot().version()}; }

  api::TeachStatus teach(api::TeachRequest request) override;
  std::vector<api::TeachStatus> teach_jobs() const override;
  std::optional<api::TeachStatus> teach_job(const std::string& id) const override;
  bool cancel_teach(const std::string& id) override;
  std::string explain(const std::string& prompt, const std::optional<std::string>& answer,
                      std::int64_t top, const api::MemoryView& memory) override;
  std::vector<api::Canary> canaries() const override;
  void set_canary(api::Canary canary) override;
  bool remove_canary(const std::string& id) override;

  void set_job(const api::TeachStatus& status);  // progress, as a test wants it
  std::vector<api::TeachRequest> taught() const;

 private:
  void check(std::optional<std::uint64_t> if_version) const;  // throws Refusal 412

  Store store_;
  mutable std::mutex mutex_;
  std::map<std::string, api::TeachStatus> jobs_;
  std::vector<api::TeachRequest> taught_;
  std::map<std::string, api::Canary> canaries_;
};

class FakeEngine : public api::Engine {
 public:
  const Tokenizer& tokenizer() const override { return tokenizer_; }
  const ChatTemplate* chat_template() const override { return chat_ ? &*chat_ : nullptr; }
  const std::string& model_id() const override { return model_id_; }
  std::int64_t context() const override { return 512; }
  std::string weights_digest() const override { return weights; }
  std::vector<std::int32_t> end_tokens() const override { return {NamedLetters::kEos}; }
  std::vector<std::int64_t> submit(
      std::vector<std::pair<api::Job, std::shared_ptr<api::Listener>>> jobs) override;
  void cancel(const std::vector<std::int64_t>& jobs) override;
  api::EngineCounters counters() const override;
  api::Memory* memory() override { return memory_.get(); }

  // One token of each sequence that has its place, or places. Whether there was anything to do.
  bool step();
  // What it says behind a prompt: by the text that prompts end with; " ok" else.
  void say(const std::string& prompt, const std::string& answer) { answers_[prompt] = answer; }
  void add_memory(const std::string& folder) { memory_ = std::make_unique<FakeMemory>(folder); }
  FakeMemory& fake_memory() { return *memory_; }
  std::vector<api::Job> jobs() const;  // all that were ever submitted
  std::size_t sequences() const;       // that are there now

  std::int64_t places = 16, queue = 64;  // beyond: 429
  std::string weights = "0123456789abcdef0123456789abcdef";
  std::optional<std::string> trouble = {};
  std::optional<std::int64_t> fails_at = {};  // the token at which every sequence fails
  std::uint64_t version = 1;                  // without a memory of its own

 private:
  struct Sequence {
    std::int64_t number;
    api::Job job;
    std::shared_ptr<api::Listener> listener;
    std::string answer;     // bytes that are to come, then an end
    std::size_t said = 0;   // tokens
    std::string held = {};  // text that is not certain yet
    bool has_started = false;
  };
  std::optional<std::int32_t> next_token(const Sequence& sequence) const;
  DecodedToken advance(Sequence& sequence) const;
  std::string certain_text(Sequence& sequence, bool is_last, bool& is_stopped) const;

  const NamedLetters tokenizer_;
  const std::string model_id_ = "letters";
  const std::optional<ChatTemplate> chat_{
      {tokenizer_, "chat.jinja",
       "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
       "{{ raise_exception('system first') }}{% endif %}"
       "[{{ m.role }}]{{ m.content }}\n{% endfor %}"
       "{% if add_generation_prompt %}[assistant]{% endif %}"}};
  std::map<std::string, std::string> answers_;
  std::unique_ptr<FakeMemory> memory_;
  mutable std::mutex mutex_;  // of what follows
  std::deque<std::shared_ptr<Sequence>> sequences_;
  std::vector<api::Job> jobs_;
  std::set<std::int64_t> cancelled_;
  std::int64_t next_ = 1, prompt_tokens_ = 0, generated_ = 0;
};

}  // namespace memlayers::testing
