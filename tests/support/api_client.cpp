// SPDX-License-Identifier: Apache-2.0
#include "support/api_client.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "support/testing.h"

namespace memlayers::testing {

ApiClient::ApiClient() { options.comment_s = 60; }

api::Service& ApiClient::service() {
  if (!service_) service_ = std::make_unique<api::Service>(engine, options);
  return *service_;
}

std::shared_ptr<FakeExchange> ApiClient::begin(const std::string& method, const std::string& path,
                                               const std::string& body, http::Fields more) {
  const http::Handler handler = service().handler();
  more.insert(more.end(), headers.begin(), headers.end());
  http::Request request = request_of(method, path, "", std::move(more));
  const http::Admission admission = handler.admit(request);
  if (!admission.refusal) {
    EXPECT_LE(body.size(), admission.most_body_bytes);
    request.body = body;
    if (admission.body_to_file) {
      request.body_file = uploads_ / ("body-" + std::to_string(++files_));
      write_file(*request.body_file, body);
      request.body.clear();
    }
  }
  auto exchange = std::make_shared<FakeExchange>(std::move(request));
  if (admission.refusal) {
    exchange->answer(*admission.refusal);
  } else {
    handler.handle(exchange);
  }
  return exchange;
}

http::Response ApiClient::finish(FakeExchange& exchange) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!exchange.is_over()) {
    if (!engine.step()) exchange.wait_for_news();
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "no answer within 20 s";
      break;
    }
  }
  return exchange.response();
}

http::Response ApiClient::ask(const std::string& method, const std::string& path,
                              const std::string& body, http::Fields more) {
  const auto exchange = begin(method, path, body, std::move(more));
  return finish(*exchange);
}

nlohmann::json ApiClient::get(const std::string& path, int status) {
  const http::Response response = ask("GET", path);
  EXPECT_EQ(response.status, status) << response.body;
  return nlohmann::json::parse(response.body);
}

nlohmann::json ApiClient::post(const std::string& path, const nlohmann::json& body, int status) {
  const http::Response response = ask("POST", path, body.dump());
  EXPECT_EQ(response.status, status) << response.body;
  return nlohmann::json::parse(response.body);
}

nlohmann::json ApiClient::error(const std::string& path, const nlohmann::json& body, int status) {
  const http::Response response = ask("POST", path, body.dump());
  EXPECT_EQ(response.status, status) << body.dump() << "\n" << response.body;
  expect_openai_error(response);
  return nlohmann::json::parse(response.body).value("error", nlohmann::json());
}

void ApiClient::wait_for_sequences(std::size_t count) const {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (engine.sequences() != count && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_EQ(engine.sequences(), count);
}

Events events_of(const std::string& body) {
  Events events;
  std::size_t at = 0;
  while (at < body.size()) {
    const std::size_t end = body.find("\n\n", at);
    if (end == std::string::npos) {
      ADD_FAILURE() << "an event that does not end: " << body.substr(at);
      break;
    }
    const std::string line = body.substr(at, end - at);
    at = end + 2;
    EXPECT_FALSE(events.is_done) << "behind [DONE]: " << line;
    if (line.starts_with(": ")) {
      ++events.comments;
    } else if (line == "data: [DONE]") {
      events.is_done = true;
    } else if (line.starts_with("data: ")) {
      events.chunks.push_back(nlohmann::json::parse(line.substr(6)));
    } else {
      ADD_FAILURE() << "neither data nor a comment: " << line;
    }
  }
  const bool ends_in_error = !events.chunks.empty() && events.chunks.back().contains("error");
  EXPECT_NE(events.is_done, ends_in_error);
  return events;
}

void expect_openai_error(const http::Response& response) {
  EXPECT_EQ(header_of(response, "content-type"), "application/json");
  const auto json = nlohmann::json::parse(response.body);
  ASSERT_TRUE(json.is_object() && json.size() == 1 && json.contains("error")) << response.body;
  const auto& error = json["error"];
  EXPECT_EQ(error.size(), 4U);
  EXPECT_TRUE(error.at("message").is_string() && error.at("message") != "");
  EXPECT_TRUE(error.at("type").is_string());
  EXPECT_TRUE(error.at("code").is_string());
  EXPECT_TRUE(error.at("param").is_string() || error.at("param").is_null());
}

}  // namespace memlayers::testing
