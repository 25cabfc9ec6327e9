// SPDX-License-Identifier: Apache-2.0
// What tells of the server itself. Nothing here waits for anything: it is answered while hundreds
// of streams run.
#include <algorithm>
#include <ctime>

#include "api/page.h"
#include "api/routes.h"
#include "api/status.h"
#include "io/shown.h"

namespace memlayers::api {
namespace {

Json model_json(const Engine& engine) {
  static const std::time_t started = std::time(nullptr);
  return {{"id", engine.model_id()},
          {"object", "model"},
          {"created", static_cast<std::int64_t>(started)},
          {"owned_by", "memlayers"},
          {"root", engine.model_id()},
          {"max_model_len", engine.context()},
          {"meta",
           {{"n_ctx_train", engine.context()},
            {"n_vocab", engine.tokenizer().vocab_size()},
            {"weights_digest", engine.weights_digest()},
            {"has_chat_template", engine.chat_template() != nullptr}}}};
}

void models(const Call& call) {
  call.answer(kOk, {{"object", "list"}, {"data", Json::array({model_json(call.shared->engine)})}});
}

void model(const Call& call) {
  const std::string& id = call.arguments[0];
  const auto& aliases = call.shared->options.model_aliases;
  if (id != call.shared->engine.model_id() &&
      std::find(aliases.begin(), aliases.end(), id) == aliases.end()) {
    throw Refusal(kNotFound, "model_not_found",
                  "the model " + io::quote(id) + " does not exist; this server has " +
                      io::quote(call.shared->engine.model_id()),
                  "model");
  }
  call.answer(kOk, model_json(call.shared->engine));
}

// {status, and what is wrong}: "ok", "degraded" (some requests may fail), "draining".
void health(const Call& call) {
  const EngineCounters counters = call.shared->engine.counters();
  const bool is_draining = call.shared->is_draining;
  Json json{{"status", is_draining        ? "draining"
                       : counters.trouble ? "degraded"
                                          : "ok"},
            {"running", counters.running},
            {"waiting", counters.waiting}};
  if (counters.trouble) json["trouble"] = *counters.trouble;
  call.answer(is_draining ? kUnavailable : kOk, json);
}

void metrics(const Call& call) {
  Shared& shared = *call.shared;
  std::optional<Metrics::MemoryFacts> facts;
  if (const Memory* memory = shared.engine.memory()) {
    const Snapshot pool = memory->snapshot();
    facts.emplace(Metrics::MemoryFacts{.version = pool.version(),
                                       .patches = static_cast<std::int64_t>(pool.patches().size()),
                                       .is_writable = memory->health() == "good"});
    for (const Canary& canary : memory->canaries()) {
      ++facts->canaries;
      if (canary.is_well == false) ++facts->failing_canaries;
    }
  }
  respond(*call.exchange,
          {.headers = {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}},
           .body = shared.metrics.text(shared.engine.counters(), shared.engine.model_id(),
                                       shared.is_draining, facts)});
}

void openapi(const Call& call) {
  respond(*call.exchange,
          {.headers = {{"content-type", "application/json"}}, .body = call.shared->openapi});
}

void page(const Call& call) {
  if (!call.shared->options.has_page)
    throw Refusal(kNotFound, "unknown_url", "this server has no page");
  respond(*call.exchange, {.headers = {{"content-type", "text/html; charset=utf-8"},
                                       {"content-security-policy", std::string(page_policy())},
                                       {"x-content-type-options", "nosniff"},
                                       {"referrer-policy", "no-referrer"},
                                       {"cache-control", "no-cache"}},
                           .body = std::string(page_html())});
}

}  // namespace

std::vector<Route> status_routes() {
  return {{.method = "GET",
           .path = "/",
           .right = Right::kNone,
           .summary = "The page.",
           .gives = "text/html",
           .run = page},
          {.method = "GET",
           .path = "/health",
           .right = Right::kNone,
           .summary = "200 while the process answers; 503 while it drains.",
           .run = health},
          {.method = "GET",
           .path = "/v1/health",
           .right = Right::kNone,
           .summary = "The same.",
           .run = health},
          {.method = "GET",
           .path = "/ready",
           .right = Right::kNone,
           .summary = "200 while requests are taken, 503 while the server drains.",
           .run = health},
          {.method = "GET",
           .path = "/metrics",
           .where = Where::kAsks,
           .summary = "Prometheus' text format.",
           .gives = "text/plain",
           .run = metrics},
          {.method = "GET",
           .path = "/openapi.json",
           .right = Right::kNone,
           .where = Where::kAsks,
           .summary = "This document.",
           .run = openapi},
          {.method = "GET", .path = "/v1/models", .summary = "The model.", .run = models},
          {.method = "GET", .path = "/v1/models/{id*}", .summary = "The model.", .run = model}};
}

}  // namespace memlayers::api
