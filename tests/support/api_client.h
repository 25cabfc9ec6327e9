// SPDX-License-Identifier: Apache-2.0
// A client of api::Service over a FakeEngine, without sockets.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/service.h"
#include "support/fake_engine.h"
#include "support/fake_exchange.h"
#include "support/temp_dir.h"

namespace memlayers::testing {

class ApiClient {
 public:
  ApiClient();
  FakeEngine engine;
  api::ServiceOptions options;  // before the first request
  http::Fields headers;         // of every request

  api::Service& service();
  // Admits and hands over a request; its answer may come later.
  std::shared_ptr<FakeExchange> begin(const std::string& method, const std::string& path,
                                      const std::string& body = "", http::Fields more = {});
  // And steps until the answer is over.
  http::Response ask(const std::string& method, const std::string& path,
                     const std::string& body = "", http::Fields more = {});
  http::Response finish(FakeExchange& exchange);
  // The answer's JSON; fails where the status is another one.
  nlohmann::json get(const std::string& path, int status = 200);
  nlohmann::json post(const std::string& path, const nlohmann::json& body, int status = 200);
  // The member "error" of an answer to this body, after checks of its form.
  nlohmann::json error(const std::string& path, const nlohmann::json& body, int status = 400);
  // Waits until the engine has so many sequences.
  void wait_for_sequences(std::size_t count) const;

 private:
  TempDir uploads_;
  int files_ = 0;
  std::unique_ptr<api::Service> service_;
};

// The events of a stream: each line is a comment or whole JSON behind "data: ". Behind the last
// stands [DONE], unless that is an error.
struct Events {
  std::vector<nlohmann::json> chunks;
  int comments = 0;
  bool is_done = false;
};
Events events_of(const std::string& body);
// Fails where the error is not as OpenAI writes them.
void expect_openai_error(const http::Response& response);

}  // namespace memlayers::testing
