// SPDX-License-Identifier: Apache-2.0
// Facts that are learned beside serving: jobs, and their progress.
#include "api/errors.h"
#include "api/memory_json.h"
#include "api/routes.h"
#include "api/status.h"
#include "io/shown.h"

namespace memlayers::api {
namespace {

constexpr double kMostRatio = 1e6;

const FieldRule kTeachRules[] = {
    {"facts",
     R"({"type":"array","minItems":1,"items":{"type":"object","additionalProperties":false,
      "required":["prompt","answer"],"properties":{"prompt":{"type":"string","minLength":1},
      "answer":{"type":"string","minLength":1},
      "paraphrases":{"type":"array","items":{"type":"string","minLength":1}},
      "unseen":{"type":"array","items":{"type":"string","minLength":1}},
      "subject":{"type":"string","minLength":1}}}})",
     "What is to be learned. Paraphrases are learned too, unseen ones only measured. The subject, "
     "what the fact is about, is what memory_confidence goes by."},
    {"background", R"({"anyOf":[{"type":"string"},{"type":"array","items":{"type":"string"}}]})",
     "Text of what is to stay as it is, or JSONL of facts: it is rehearsed."},
    {"gate",
     R"({"type":"object","additionalProperties":false,"properties":{
      "recall":{"type":"number","minimum":0,"maximum":1},
      "keep":{"type":"number","minimum":0,"maximum":1},
      "perplexity":{"type":"number","exclusiveMinimum":0}}})",
     "The patch is applied only where all hold: share of the facts that are recalled, share of the "
     "background's that still are, and the background's perplexity as a multiple of before."},
    {"note", R"({"type":"string"})", "Stands among the patch's notes."}};
const FieldRule kFactRules[] = {{"prompt", "{}", ""},
                                {"answer", "{}", ""},
                                {"paraphrases", "{}", ""},
                                {"unseen", "{}", ""},
                                {"subject", "{}", ""}};
const FieldRule kGateRules[] = {{"recall", "{}", ""}, {"keep", "{}", ""}, {"perplexity", "{}", ""}};

std::string facts_of(const io::JsonField& facts) {
  std::string lines;
  for (const io::JsonField& fact : facts.elements()) {
    check_fields(fact, kFactRules);
    some_text(fact.at("prompt"));
    some_text(fact.at("answer"));
    if (const auto subject = fact.find("subject")) some_text(*subject);
    for (const char* name : {"paraphrases", "unseen"}) {
      if (const auto list = fact.find(name)) {
        for (const io::JsonField& text : list->elements()) some_text(text);
      }
    }
    lines += fact.json().dump() + "\n";
  }
  if (lines.empty()) facts.fail("at least one fact");
  return lines;
}

std::string background_of(const io::JsonField& field) {
  if (field.is_string()) return field.string();
  if (!field.is_array()) field.fail("a text or a list of texts");
  std::string lines;
  for (const io::JsonField& text : field.elements()) lines += text.string() + "\n";
  return lines;
}

TeachRequest read_teach(const io::JsonField& body) {
  check_fields(body, kTeachRules);
  TeachRequest request{.facts_jsonl = facts_of(body.at("facts"))};
  if (const auto field = body.find("background")) request.background = background_of(*field);
  if (const auto gate = body.find("gate")) {
    check_fields(*gate, kGateRules);
    if (const auto f = gate->find("recall")) request.least_recall = number_in(*f, 0, 1);
    if (const auto f = gate->find("keep")) request.least_kept = number_in(*f, 0, 1);
    if (const auto f = gate->find("perplexity")) {
      request.most_perplexity_ratio = number_above(*f, 0, kMostRatio);
    }
  }
  request.note = body.string_or("note", "");
  return request;
}

void teach(const Call& call) {
  Memory& memory = memory_of(call);
  const nlohmann::json json = call.body();
  const TeachStatus status = memory.teach(read_teach(io::JsonField(json, "")));
  call.shared->log.write("teach", {{"id", call.request().id}, {"job", status.id}});
  call.answer(kAccepted, teach_json(status), {{"location", "/v1/memory/teach/" + status.id}});
}

void jobs(const Call& call) {
  Json all = Json::array();
  for (const TeachStatus& status : memory_of(call).teach_jobs()) all.push_back(teach_json(status));
  call.answer(kOk, {{"jobs", all}});
}

TeachStatus job_of(Memory& memory, const std::string& id) {
  if (auto status = memory.teach_job(id)) return *std::move(status);
  throw Refusal(kNotFound, "job_not_found", "there is no job " + io::quote(id), "id");
}

// An event for each change of the job, until it is over.
class Progress final : public Ticked, public std::enable_shared_from_this<Progress> {
 public:
  Progress(std::shared_ptr<Shared> shared, std::shared_ptr<http::Exchange> exchange, std::string id)
      : shared_(std::move(shared)), exchange_(std::move(exchange)), id_(std::move(id)) {}

  void start() {
    begin(*exchange_, kOk,
          {{"content-type", "text/event-stream; charset=utf-8"},
           {"cache-control", "no-cache"},
           {"x-accel-buffering", "no"}});
    exchange_->on_gone([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->is_over_ = true;
    });
    look();
    shared_->ticker.add(shared_from_this());
  }

  bool tick(Clock::time_point /*now*/) override {
    if (is_over_) return false;
    if (!is_looking_.exchange(true)) {  // the clock waits for nothing
      shared_->asks.post([self = shared_from_this()] {
        self->look();
        self->is_looking_ = false;
      });
    }
    return true;
  }

 private:
  void look() {
    const std::lock_guard lock(mutex_);
    if (is_over_) return;
    const auto status = shared_->engine.memory()->teach_job(id_);
    const std::string text = status ? text_of(teach_json(*status)) : told_;
    const std::chrono::duration<double> silence = Clock::now() - last_;
    if (text != told_) {
      write("data: " + text + "\n\n");
      told_ = text;
    } else if (silence.count() >= shared_->options.comment_s) {
      write(": no change\n\n");
    }
    if (is_over_ || (status && !status->is_over())) return;
    write("data: [DONE]\n\n");
    exchange_->end();
    is_over_ = true;
  }

  void write(std::string piece) {
    last_ = Clock::now();
    if (!exchange_->write(std::move(piece))) is_over_ = true;
  }

  const std::shared_ptr<Shared> shared_;
  const std::shared_ptr<http::Exchange> exchange_;
  const std::string id_;
  std::atomic<bool> is_over_{false}, is_looking_{false};
  std::mutex mutex_;  // of what follows
  std::string told_;
  Clock::time_point last_ = Clock::now();  // that something was written
};

void job(const Call& call) {
  Memory& memory = memory_of(call);
  const TeachStatus status = job_of(memory, call.arguments[0]);
  const std::string* accept = call.request().header("accept");
  if (accept == nullptr || accept->find("text/event-stream") == std::string::npos) {
    return call.answer(kOk, teach_json(status));
  }
  std::make_shared<Progress>(call.shared, call.exchange, status.id)->start();
}

void events(const Call& call) {
  const TeachStatus status = job_of(memory_of(call), call.arguments[0]);
  std::make_shared<Progress>(call.shared, call.exchange, status.id)->start();
}

void cancel(const Call& call) {
  Memory& memory = memory_of(call);
  const TeachStatus before = job_of(memory, call.arguments[0]);
  if (!memory.cancel_teach(before.id) && before.state != "cancelled") {
    throw Refusal(kConflict, "job_is_over",
                  "the job " + io::quote(before.id) + " is over: " + before.state, "id");
  }
  call.answer(kOk, teach_json(job_of(memory, before.id)));
}

}  // namespace

std::vector<Route> teach_routes() {
  return {{.method = "POST",
           .path = "/v1/memory/teach",
           .right = Right::kAdmin,
           .where = Where::kEdits,
           .body = Body::kJson,
           .summary = "Begins a job that learns facts as a patch and applies it if its gate holds.",
           .fields = [] { return FieldRules(kTeachRules); },
           .run = teach},
          {.method = "GET",
           .path = "/v1/memory/teach",
           .right = Right::kAdmin,
           .where = Where::kAsks,
           .summary = "The jobs.",
           .run = jobs},
          {.method = "GET",
           .path = "/v1/memory/teach/{id}",
           .right = Right::kAdmin,
           .where = Where::kAsks,
           .summary = "A job; with Accept: text/event-stream its progress, as events.",
           .gives = "application/json, text/event-stream",
           .run = job},
          {.method = "GET",
           .path = "/v1/memory/teach/{id}/events",
           .right = Right::kAdmin,
           .where = Where::kAsks,
           .summary = "A job's progress, as events.",
           .gives = "text/event-stream",
           .run = events},
          {.method = "DELETE",
           .path = "/v1/memory/teach/{id}",
           .right = Right::kAdmin,
           .where = Where::kEdits,
           .summary = "Cancels a job.",
           .run = cancel}};
}

}  // namespace memlayers::api
