// SPDX-License-Identifier: Apache-2.0
#include "api/errors.h"
#include "api/receipt.h"
#include "api/respond.h"
#include "api/run.h"
#include "api/status.h"
#include "memlayers/patch.h"

namespace memlayers::api {
namespace {

// First an event with the role, for chat; then text as it comes, an empty one with the reason of
// the end, one with `usage` if asked for, [DONE]. An error is an event too, and the last. Where
// nothing comes for a while there are comments, which clients skip.
class StreamedRun final : public Run, public Ticked {
 public:
  StreamedRun(std::shared_ptr<Shared> shared, std::shared_ptr<http::Exchange> exchange, Asked asked)
      : Run(std::move(shared), std::move(exchange), std::move(asked)),
        form_(shape()),
        id_(form_->id_prefix() + new_patch_id()) {}

  bool tick(Clock::time_point now) override {
    const std::lock_guard lock(mutex_);
    if (is_done_ || is_gone()) return false;
    const std::chrono::duration<double> silence = now - last_;
    if (silence.count() >= shared_->options.comment_s) {
      write(has_started() ? ": at work\n\n" : ": in the queue\n\n");
    }
    return true;
  }

 protected:
  void submitted() override {
    shared_->ticker.add(std::static_pointer_cast<StreamedRun>(shared_from_this()));
  }

  void started(Choice& choice) override {
    if (const auto opening = form_->opening(choice)) write(event(chunk(*opening)));
  }

  void took(Choice& choice) override {
    std::string events;
    const bool echoes = asked_.echo && !choice.is_begun;
    if (!choice.untold_text.empty() || !choice.untold.empty() || echoes) {
      events += event(chunk(form_->delta(choice)));
      choice.is_begun = true;
      choice.prompt_logprobs.clear();
      choice.untold.clear();
      choice.untold_text.clear();
    }
    if (choice.finish) events += event(chunk(form_->ending(choice)));
    if (!events.empty()) write(std::move(events));
  }

  void over() override {
    is_done_ = true;
    log();
    if (const auto& why = failure()) {
      if (!has_begun_) return respond(*exchange_, answer_of(*why));
      write(event(error_json(*why)));
    } else {
      std::string events;
      if (asked_.includes_usage || asked_.gives_receipt) events += event(last_chunk());
      write(events + "data: [DONE]\n\n");
    }
    exchange_->end();
  }

 private:
  static std::string event(const Json& json) { return "data: " + text_of(json) + "\n\n"; }

  Json chunk(Json choice) const {
    Json json = head(id_, form_->chunk_object());
    json["choices"] = Json::array({std::move(choice)});
    if (asked_.includes_usage) json["usage"] = nullptr;
    return json;
  }

  Json last_chunk() {
    Json json = head(id_, form_->chunk_object());
    json["choices"] = Json::array();
    if (asked_.includes_usage) json["usage"] = usage();
    if (asked_.gives_receipt) {
      json["receipt"] = receipt_of(shared_->engine, asked_, pool_version(), choices());
    }
    return json;
  }

  void write(std::string piece) {
    if (!has_begun_) {
      has_begun_ = true;
      http::Fields fields = headers();
      // A proxy that collects what it passes on would make one piece of the stream.
      fields.insert(fields.end(), {{"content-type", "text/event-stream; charset=utf-8"},
                                   {"cache-control", "no-cache"},
                                   {"x-accel-buffering", "no"}});
      begin(*exchange_, kOk, std::move(fields));
    }
    last_ = Clock::now();
    if (!exchange_->write(std::move(piece))) client_left();
  }

  const std::unique_ptr<AnswerShape> form_;
  const std::string id_;
  Clock::time_point last_ = Clock::now();  // that something was written
  bool has_begun_ = false, is_done_ = false;
};

}  // namespace

std::shared_ptr<Run> streamed_run(std::shared_ptr<Shared> shared,
                                  std::shared_ptr<http::Exchange> exchange, Asked asked) {
  return std::make_shared<StreamedRun>(std::move(shared), std::move(exchange), std::move(asked));
}

}  // namespace memlayers::api
