// SPDX-License-Identifier: Apache-2.0
#include "api/run.h"

#include <algorithm>
#include <ctime>
#include <utility>

#include "api/errors.h"
#include "api/status.h"
#include "text/finish_reason.h"

namespace memlayers::api {
namespace {

double seconds_since(Clock::time_point then) {
  return std::chrono::duration<double>(Clock::now() - then).count();
}

}  // namespace

class Run::ChoiceListener final : public Listener {
 public:
  ChoiceListener(std::shared_ptr<Run> run, std::size_t choice)
      : run_(std::move(run)), choice_(choice) {}
  void judged(double memory_confidence) override { run_->heard_judged(choice_, memory_confidence); }
  void started(std::uint64_t pool_version, std::int64_t cached_prompt_tokens) override {
    run_->heard_started(choice_, pool_version, cached_prompt_tokens);
  }
  void token(const DecodedToken& token, const std::vector<TokenSlot>& slots) override {
    run_->heard_token(choice_, token, slots);
  }

 private:
  const std::shared_ptr<Run> run_;
  const std::size_t choice_;
};

Run::Run(std::shared_ptr<Shared> shared, std::shared_ptr<http::Exchange> exchange, Asked asked)
    : shared_(std::move(shared)),
      exchange_(std::move(exchange)),
      asked_(std::move(asked)),
      created_(std::time(nullptr)) {
  for (const Prompt& prompt : asked_.prompts) {
    for (std::int64_t i = 0; i < asked_.n; ++i) {
      Choice choice(shared_->engine.tokenizer());
      choice.index = static_cast<std::int64_t>(choices_.size());
      choice.prompt = &prompt;
      choices_.push_back(std::move(choice));
    }
  }
  times_.resize(choices_.size());
  open_ = choices_.size();
}

void Run::start() {
  std::vector<std::pair<Job, std::shared_ptr<Listener>>> jobs;
  const std::int64_t context = shared_->engine.context();
  for (const Choice& choice : choices_) {
    Job job{.prompt = choice.prompt->tokens,
            .options = asked_.options,
            .memory = asked_.memory,
            .explain_slots = asked_.explain_slots};
    job.options.seed += static_cast<std::uint64_t>(choice.index % asked_.n);
    job.options.max_tokens =
        std::min(job.options.max_tokens, context - static_cast<std::int64_t>(job.prompt.size()));
    jobs.emplace_back(std::move(job),
                      std::make_shared<ChoiceListener>(shared_from_this(),
                                                       static_cast<std::size_t>(choice.index)));
  }
  std::vector<std::int64_t> numbers = shared_->engine.submit(std::move(jobs));
  {
    const std::lock_guard lock(mutex_);
    jobs_ = std::move(numbers);
  }
  cancel_unneeded();  // the engine may have come to that before submit() was back
  submitted();
  exchange_->on_gone([weak = weak_from_this()] {
    if (const auto run = weak.lock()) run->leave();
  });
}

void Run::heard_judged(std::size_t choice, double confidence) {
  const std::lock_guard lock(mutex_);
  choices_[choice].memory_confidence = confidence;
}

void Run::heard_started(std::size_t choice, std::uint64_t version, std::int64_t cached) {
  {
    const std::lock_guard lock(mutex_);
    if (is_over_ || is_gone_) return;
    if (shared_->engine.memory() != nullptr) pool_version_ = version;
    times_[choice].cached = cached;
    has_started_ = true;
    started(choices_[choice]);
  }
  cancel_unneeded();
}

void Run::heard_token(std::size_t choice, const DecodedToken& token,
                      const std::vector<TokenSlot>& slots) {
  {
    const std::lock_guard lock(mutex_);
    if (is_over_ || is_gone_) return;
    if (token.token) note_times(times_[choice]);
    try {
      take(choices_[choice], token, slots);
      if (!failure_) took(choices_[choice]);
    } catch (...) {  // memory was short: this request's trouble, not the engine's
      failure_ = refusal_of(std::current_exception());
    }
    if (failure_ || open_ == 0) {
      is_over_ = true;
      over();
    }
  }
  cancel_unneeded();
}

void Run::take(Choice& choice, const DecodedToken& token, const std::vector<TokenSlot>& slots) {
  if (token.finish == FinishReason::kError) {
    failure_.emplace(kUnavailable, "generation_failed", token.error);
    shared_->metrics.finished("error", seconds_since(came_));
    return;
  }
  choice.text += token.text;
  choice.untold_text += token.text;
  choice.prompt_logprobs.insert(choice.prompt_logprobs.end(), token.prompt_logprobs.begin(),
                                token.prompt_logprobs.end());
  if (token.token) {
    choice.ids.push_back(*token.token);
    if (asked_.options.logprobs || asked_.explain_slots > 0) {
      choice.untold.push_back({*token.token, token.logprobs, slots});
    }
  }
  if (!token.finish) return;
  choice.finish = token.finish;
  --open_;
  shared_->metrics.finished(text::name_of(*token.finish), seconds_since(came_));
}

void Run::note_times(Times& times) {
  const Clock::time_point now = Clock::now();
  if (times.last) {
    shared_->metrics.next_token(std::chrono::duration<double>(now - *times.last).count());
  } else {
    const double since = std::chrono::duration<double>(now - came_).count();
    shared_->metrics.first_token(since);
    if (!first_token_s_) first_token_s_ = since;
  }
  times.last = now;
}

void Run::leave() {
  {
    const std::lock_guard lock(mutex_);
    if (is_over_) return;
    is_gone_ = true;
  }
  cancel_unneeded();
}

void Run::cancel_unneeded() {
  std::vector<std::int64_t> jobs;
  bool left = false;
  {
    const std::lock_guard lock(mutex_);
    // Without its numbers yet, start() comes here again.
    if ((!is_gone_ && !failure_) || is_cancelled_ || jobs_.empty()) return;
    is_cancelled_ = true;
    jobs = jobs_;
    left = is_gone_;
  }
  shared_->engine.cancel(jobs);
  if (!left) return;
  shared_->metrics.cancelled();
  shared_->log.write("gone", {{"id", exchange_->request().id}});
}

Json Run::head(const std::string& id, const char* object) const {
  Json json{{"id", id},
            {"object", object},
            {"created", created_},
            {"model", shared_->engine.model_id()},
            {"system_fingerprint", "fp_" + shared_->engine.weights_digest().substr(0, 16)}};
  if (pool_version_) json["memory"] = memory(*pool_version_);
  return json;
}

// What the answers were made with: the version of the pool, and of each prompt the confidence that
// a patch taught what it asks, a number where there is one prompt.
Json Run::memory(std::uint64_t version) const {
  Json json{{"version", version}}, confidences = Json::array();
  for (std::size_t i = 0; i < choices_.size(); i += static_cast<std::size_t>(asked_.n)) {
    const std::optional<double>& confidence = choices_[i].memory_confidence;
    confidences.push_back(confidence ? Json(*confidence) : Json());
  }
  const bool is_known = std::ranges::any_of(
      choices_, [](const Choice& choice) { return choice.memory_confidence.has_value(); });
  if (is_known) json["memory_confidence"] = confidences.size() == 1 ? confidences[0] : confidences;
  return json;
}

http::Fields Run::headers() const {
  http::Fields fields;
  std::optional<std::uint64_t> version = pool_version_;
  if (!version) version = asked_.memory.version;
  if (version) fields.emplace_back("x-memlayers-pool-version", std::to_string(*version));
  return fields;
}

Json Run::usage() const {
  std::int64_t prompt = 0, answer = 0, cached = 0;
  for (const Choice& choice : choices_) {
    answer += static_cast<std::int64_t>(choice.ids.size());
    if (choice.index % asked_.n != 0) continue;  // its prompt counts once
    prompt += static_cast<std::int64_t>(choice.prompt->tokens.size());
    cached += times_[static_cast<std::size_t>(choice.index)].cached;
  }
  return {{"prompt_tokens", prompt},
          {"completion_tokens", answer},
          {"total_tokens", prompt + answer},
          {"prompt_tokens_details", {{"cached_tokens", cached}}}};
}

std::unique_ptr<AnswerShape> Run::shape() const {
  return asked_.is_chat ? chat_shape(asked_, shared_->texts)
                        : completion_shape(asked_, shared_->texts);
}

void Run::log() const {
  const Json counts = usage();
  Json fields{{"id", exchange_->request().id},
              {"kind", asked_.is_chat ? "chat" : "completion"},
              {"streams", asked_.streams},
              {"prompt_tokens", counts["prompt_tokens"]},
              {"completion_tokens", counts["completion_tokens"]},
              {"seconds", seconds_since(came_)}};
  if (first_token_s_) fields["first_token_seconds"] = *first_token_s_;
  if (pool_version_) fields["pool_version"] = *pool_version_;
  if (failure_) fields["error"] = failure_->what();
  if (shared_->options.logs_prompts) {
    Json answers = Json::array(), prompts = Json::array();
    for (const Choice& choice : choices_) answers.push_back(choice.text);
    for (const Prompt& prompt : asked_.prompts) {
      prompts.push_back(shared_->engine.tokenizer().decode(prompt.tokens));
    }
    fields["prompts"] = prompts;
    fields["answers"] = answers;
  }
  shared_->log.write("answer", fields);
}

}  // namespace memlayers::api
