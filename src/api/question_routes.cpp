// SPDX-License-Identifier: Apache-2.0
// Questions about what the memory does: where an answer comes from, whether known answers still
// come, whether an answer comes again.
#include "api/errors.h"
#include "api/memory_json.h"
#include "api/receipt.h"
#include "api/routes.h"
#include "api/run.h"
#include "api/status.h"
#include "io/json.h"
#include "io/shown.h"
#include "memlayers/patch.h"

namespace memlayers::api {
namespace {

constexpr std::int64_t kMostTop = 1000, kUsualTop = 10;
// All of a thousand are written anew with each that is set.
constexpr std::size_t kMostCanaries = 1000, kMostId = 100, kMostCanaryText = 16384;

const FieldRule kExplainRules[] = {
    {"prompt", R"({"type":"string","minLength":1})", "What the model is asked."},
    {"answer", R"({"type":"string","minLength":1})",
     "What is explained; left out: the model's own answer."},
    {"top", R"({"type":"integer","minimum":1,"maximum":1000,"default":10})",
     "Slots that are left out, one after the other."},
    kMemoryRule};
const FieldRule kCanaryRules[] = {
    {"id", R"({"type":"string","minLength":1,"maxLength":100})",
     "Its name; one that is there is replaced. Left out: a new one."},
    {"prompt", R"({"type":"string","minLength":1,"maxLength":16384})",
     "What the model is asked after each edit."},
    {"answer", R"({"type":"string","minLength":1,"maxLength":16384})", "What it should answer."},
    {"rolls_back", R"({"type":"boolean","default":false})",
     "Whether an edit that changes the answer is taken back."}};
const FieldRule kReplayRules[] = {
    {"receipt", R"({"type":"object"})", "As an answer gave it that was asked for with receipt."}};
const FieldRule kReceiptRules[] = {{"kind", "{}", ""},    {"model", "{}", ""},
                                   {"weights", "{}", ""}, {"pool_version", "{}", ""},
                                   {"request", "{}", ""}, {"answer", "{}", ""}};

void explain(const Call& call) {
  Memory& memory = memory_of(call);
  const nlohmann::json json = call.body();
  const io::JsonField body(json, "");
  check_fields(body, kExplainRules);
  std::optional<std::string> answer;
  if (const auto field = body.find("answer")) answer = some_text(*field);
  const std::string text = memory.explain(some_text(body.at("prompt")), answer,
                                          integer_or(body, "top", kUsualTop, 1, kMostTop),
                                          read_memory_view(body, call.shared->engine));
  respond(*call.exchange, {.headers = {{"content-type", "application/json"}}, .body = text});
}

Json canary_json(const Canary& canary) {
  Json json{{"id", canary.id},         {"prompt", canary.prompt},
            {"answer", canary.answer}, {"rolls_back", canary.rolls_back},
            {"is_well", nullptr},      {"last_answer", canary.last_answer}};
  if (canary.is_well) json["is_well"] = *canary.is_well;
  return json;
}

void canaries(const Call& call) {
  Json all = Json::array();
  for (const Canary& canary : memory_of(call).canaries()) all.push_back(canary_json(canary));
  call.answer(kOk, {{"canaries", all}});
}

void set_canary(const Call& call) {
  Memory& memory = memory_of(call);
  const nlohmann::json json = call.body();
  const io::JsonField body(json, "");
  check_fields(body, kCanaryRules);
  Canary canary{.id = body.string_or("id", new_patch_id()),
                .prompt = some_text(body.at("prompt")),
                .answer = some_text(body.at("answer")),
                .rolls_back = body.boolean_or("rolls_back", false)};
  if (canary.id.empty() || canary.id.size() > kMostId) {
    body.at("id").fail("a text of 1 to " + std::to_string(kMostId) + " bytes");
  }
  for (const char* name : {"prompt", "answer"}) {
    if (body.at(name).string().size() <= kMostCanaryText) continue;
    body.at(name).fail("a text of at most " + std::to_string(kMostCanaryText) + " bytes");
  }
  if (memory.canaries().size() >= kMostCanaries) {
    throw Refusal(kConflict, "too_many_canaries",
                  "expected at most " + std::to_string(kMostCanaries) + " canaries");
  }
  memory.set_canary(canary);
  for (const Canary& set : memory.canaries()) {  // it may have been asked already
    if (set.id == canary.id) canary = set;
  }
  call.answer(kOk, canary_json(canary));
}

void remove_canary(const Call& call) {
  const std::string& id = call.arguments[0];
  if (!memory_of(call).remove_canary(id)) {
    throw Refusal(kNotFound, "canary_not_found", "there is no canary " + io::quote(id), "id");
  }
  call.answer(kOk, {{"id", id}, {"deleted", true}});
}

// An answer made again, beside what its receipt says of it.
class ReplayRun final : public Run {
 public:
  ReplayRun(std::shared_ptr<Shared> shared, std::shared_ptr<http::Exchange> exchange, Asked asked,
            std::string expected)
      : Run(std::move(shared), std::move(exchange), std::move(asked)),
        expected_(std::move(expected)) {}

 protected:
  void over() override {
    log();
    if (const auto& why = failure()) return respond(*exchange_, answer_of(*why));
    const std::string digest = answer_digest(choices());
    Json answers = Json::array();
    for (const Choice& choice : choices()) {
      answers.push_back(
          {{"index", choice.index}, {"text", choice.text}, {"finish_reason", finish_of(choice)}});
    }
    Json body{{"is_same", digest == expected_},
              {"answer", digest},
              {"expected", expected_},
              {"choices", answers},
              {"usage", usage()}};
    const std::optional<std::uint64_t> version = pool_version();
    if (version) body["memory"] = memory(*version);
    respond(*exchange_, kOk, body, headers());
  }

 private:
  const std::string expected_;
};

void replay(const Call& call) {
  const nlohmann::json json = call.body();
  const io::JsonField body(json, "");
  check_fields(body, kReplayRules);
  const io::JsonField receipt = body.at("receipt");
  check_fields(receipt, kReceiptRules);
  if (receipt.at("kind").string() != kReceiptKind) {
    receipt.at("kind").fail("\"" + std::string(kReceiptKind) + "\"");
  }
  const std::string digest = call.shared->engine.weights_digest();
  if (receipt.at("weights").string() != digest) {
    throw Refusal(kConflict, "other_weights",
                  "receipt.weights: this server's weights are " + digest + ", the receipt's " +
                      io::quote(receipt.at("weights").string()),
                  "receipt.weights");
  }
  // Read by itself, so that errors name its own fields.
  const std::string text =
      io::parse_ordered_json(call.exchange->request().body, "body")["receipt"]["request"].dump();
  Asked asked = read_completion(io::JsonField(receipt.at("request").json(), "receipt.request"),
                                call.shared->reading(text));
  if (asked.streams || asked.echo || asked.options.logprobs) {
    throw Refusal(kBadRequest, "invalid_value", "receipt.request: expected one of a receipt",
                  "receipt.request");
  }
  std::make_shared<ReplayRun>(call.shared, call.exchange, std::move(asked),
                              receipt.at("answer").string())
      ->start();
}

}  // namespace

std::vector<Route> question_routes() {
  return {{.method = "POST",
           .path = "/v1/memory/explain",
           .right = Right::kAdmin,
           .where = Where::kEdits,
           .body = Body::kJson,
           .summary = "Which slots an answer rests on: what `memlayers explain --json` gives.",
           .fields = [] { return FieldRules(kExplainRules); },
           .run = explain},
          {.method = "POST",
           .path = "/v1/memory/replay",
           .right = Right::kAdmin,
           .where = Where::kAsks,
           .body = Body::kJson,
           .summary = "Makes an answer again, with the pool's version and weights of its receipt.",
           .fields = [] { return FieldRules(kReplayRules); },
           .run = replay},
          {.method = "GET",
           .path = "/v1/memory/canaries",
           .right = Right::kAdmin,
           .where = Where::kAsks,
           .summary = "Questions that are asked after each edit, and how they were answered.",
           .run = canaries},
          {.method = "POST",
           .path = "/v1/memory/canaries",
           .right = Right::kAdmin,
           .where = Where::kEdits,
           .body = Body::kJson,
           .summary = "Sets a canary.",
           .fields = [] { return FieldRules(kCanaryRules); },
           .run = set_canary},
          {.method = "DELETE",
           .path = "/v1/memory/canaries/{id}",
           .right = Right::kAdmin,
           .where = Where::kEdits,
           .summary = "Removes a canary.",
           .run = remove_canary}};
}

}  // namespace memlayers::api
