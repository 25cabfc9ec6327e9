// SPDX-License-Identifier: Apache-2.0
// What the service answers: a table, of which requests find their way, and the OpenAPI document
// (openapi.h) is made.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/fields.h"
#include "api/json.h"
#include "api/keys.h"
#include "api/respond.h"
#include "api/shared.h"
#include "http/server.h"

namespace memlayers::api {

// A request that found its route.
struct Call {
  std::shared_ptr<Shared> shared;
  std::shared_ptr<http::Exchange> exchange;
  std::vector<std::string> arguments;  // what stands for {id} and the like

  const http::Request& request() const { return exchange->request(); }
  nlohmann::json body() const { return parse_body(request().body); }
  void answer(int status, const Json& body, http::Fields headers = {}) const {
    respond(*exchange, status, body, std::move(headers));
  }
};

enum class Where {
  kAtOnce,  // on the HTTP server's thread: it waits for nothing
  kAsks,    // texts to take apart
  kEdits,   // waits for the disk, or for a model
};
enum class Body { kNone, kJson, kFile };

struct Route {
  std::string_view method, path;  // of segments: a name, "{id}", or "{id*}", which takes the rest
  Right right = Right::kAsk;
  Where where = Where::kAtOnce;
  Body body = Body::kNone;
  std::string_view summary = {};
  FieldRules (*fields)() = nullptr;  // of the body
  std::string_view gives = "application/json";
  void (*run)(const Call&) = nullptr;
};

std::vector<Route> status_routes();      // /health, /metrics, /v1/models, /, ...
std::vector<Route> completion_routes();  // /v1/completions, /v1/chat/completions
std::vector<Route> token_routes();       // /tokenize and the like
std::vector<Route> memory_routes();      // /v1/memory, its patches
std::vector<Route> teach_routes();       // /v1/memory/teach
std::vector<Route> question_routes();    // /v1/memory/explain, canaries, replay
const std::vector<Route>& all_routes();

struct Found {
  const Route* route = nullptr;
  std::vector<std::string> arguments = {};
};
// Throws Refusal 404, 405. Slashes that are doubled or last do not count.
Found find_route(std::string_view method, std::string_view path);
// The methods of a path: "GET, POST"; "" for one that is not known.
std::string methods_of(std::string_view path);

}  // namespace memlayers::api
