// SPDX-License-Identifier: Apache-2.0
#include "api/routes.h"
#include "api/run.h"

namespace memlayers::api {
namespace {

void answer(const Call& call, Asked (*read)(const io::JsonField&, const Reading&)) {
  const nlohmann::json body = call.body();
  Asked asked = read(io::JsonField(body, ""), call.shared->reading(call.exchange->request().body));
  const bool streams = asked.streams;
  (streams ? streamed_run : whole_run)(call.shared, call.exchange, std::move(asked))->start();
}

}  // namespace

std::vector<Route> completion_routes() {
  return {{.method = "POST",
           .path = "/v1/completions",
           .where = Where::kAsks,
           .body = Body::kJson,
           .summary = "Continues prompts.",
           .fields = completion_rules,
           .gives = "application/json, text/event-stream",
           .run = [](const Call& call) { answer(call, read_completion); }},
          {.method = "POST",
           .path = "/v1/chat/completions",
           .where = Where::kAsks,
           .body = Body::kJson,
           .summary = "Answers the last message of a conversation.",
           .fields = chat_rules,
           .gives = "application/json, text/event-stream",
           .run = [](const Call& call) { answer(call, read_chat); }}};
}

}  // namespace memlayers::api
