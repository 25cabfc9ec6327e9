// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "api/keys.h"
#include "support/api_client.h"
#include "support/testing.h"

namespace memlayers::testing {
namespace {

using ::testing::HasSubstr;

constexpr const char* kBody = R"({"prompt":"a"})";

http::Fields bearer(const std::string& key) {
  if (key.empty()) return {};
  return {{"authorization", "Bearer " + key}};
}

struct Server : ApiClient {
  Server(std::vector<std::string> ask, std::vector<std::string> admin) {
    options.keys = {std::move(ask), std::move(admin)};
    engine.add_memory(folder.path());
  }
  int asks(const std::string& key) {
    return ask("POST", "/v1/completions", kBody, bearer(key)).status;
  }
  int edits(const std::string& key, http::Fields more = {}) {
    for (const auto& field : bearer(key)) more.push_back(field);
    return ask("GET", "/v1/memory", "", std::move(more)).status;
  }
  TempDir folder;
};

TEST(Keys, SayWhoMayAskAndWhoMayEdit) {
  Server both({"asker", "other"}, {"admin"});
  EXPECT_EQ(both.asks(""), 401);
  EXPECT_EQ(both.asks("wrong"), 401);
  EXPECT_EQ(both.asks("asker"), 200);
  EXPECT_EQ(both.asks("other"), 200);
  EXPECT_EQ(both.asks("admin"), 200);
  EXPECT_EQ(both.asks("aske"), 401);
  EXPECT_EQ(both.asks("askerasker"), 401);
  EXPECT_EQ(both.edits(""), 401);
  EXPECT_EQ(both.edits("asker"), 403);
  EXPECT_EQ(both.edits("admin"), 200);

  Server only_ask({"asker"}, {});
  EXPECT_EQ(only_ask.asks(""), 401);
  EXPECT_EQ(only_ask.edits("asker"), 403);
  EXPECT_EQ(only_ask.edits(""), 403);

  Server only_admin({}, {"admin"});
  EXPECT_EQ(only_admin.asks(""), 200);
  EXPECT_EQ(only_admin.edits(""), 401);
  EXPECT_EQ(only_admin.edits("admin"), 200);

  Server none({}, {});
  EXPECT_EQ(none.asks(""), 200);
  EXPECT_EQ(none.edits(""), 200);
}

TEST(Keys, AreAskedForBeforeTheBody) {
  Server server({"asker"}, {});
  const http::Handler handler = server.service().handler();
  const auto refused = handler.admit(request_of("POST", "/v1/completions"));
  ASSERT_TRUE(refused.refusal);
  EXPECT_EQ(refused.refusal->status, 401);
  EXPECT_EQ(header_of(*refused.refusal, "www-authenticate"), "Bearer");
  expect_openai_error(*refused.refusal);
  const auto taken =
      handler.admit(request_of("POST", "/v1/completions", "", {{"authorization", "bearer asker"}}));
  EXPECT_FALSE(taken.refusal);
  EXPECT_EQ(taken.most_body_bytes, 4U << 20U);
  EXPECT_FALSE(taken.body_to_file);
}

TEST(Keys, ChangeForRequestsThatComeLater) {
  Server server({"old"}, {});
  EXPECT_EQ(server.asks("old"), 200);
  server.service().set_keys({{"new"}, {}});
  EXPECT_EQ(server.asks("old"), 401);
  EXPECT_EQ(server.asks("new"), 200);
}

TEST(Keys, KeepPagesOfOtherSitesFromEditing) {
  Server none({}, {});
  const auto from = [&](const std::string& origin, const std::string& host) {
    return none.edits("", {{"origin", origin}, {"host", host}});
  };
  EXPECT_EQ(from("http://localhost:8080", "localhost:8080"), 200);
  EXPECT_EQ(from("http://127.0.0.1:8080", "127.0.0.1:8080"), 200);
  EXPECT_EQ(from("http://[::1]:8080", "[::1]:8080"), 200);
  EXPECT_EQ(from("https://evil.example", "localhost:8080"), 403);
  EXPECT_EQ(from("http://evil.example:8080", "evil.example:8080"), 403);  // by a name of its own
  EXPECT_EQ(from("null", "localhost:8080"), 403);
  Server keyed({}, {"admin"});
  EXPECT_EQ(keyed.edits("admin", {{"origin", "https://page.example"}}), 200);
}

TEST(Keys, AreOneALineOfAFile) {
  TempDir folder;
  const std::string path = folder / "keys";
  write_file(path, "first\n\nsecond\r\n");
  EXPECT_EQ(api::read_keys(path), (std::vector<std::string>{"first", "second"}));
  for (const char* text : {"", "\n", "two words\n", "umlaut\xC3\xA4\n"}) {
    write_file(path, text);
    const std::string error = error_of([&] { api::read_keys(path); });
    EXPECT_THAT(error, HasSubstr(path));
    EXPECT_EQ(error.find("words"), std::string::npos);  // a key is not shown
  }
}

class Doors : public ::testing::Test {
 protected:
  http::Response ask(const std::string& method, const std::string& path,
                     http::Fields headers = {}) {
    return client.ask(method, path, "", std::move(headers));
  }
  ApiClient client;
};

TEST_F(Doors, AreOpenToBrowsersOfAnyPage) {
  client.options.keys.ask = {"asker"};
  const http::Response preflight =
      ask("OPTIONS", "/v1/chat/completions",
          {{"origin", "https://page.example"},
           {"access-control-request-method", "POST"},
           {"access-control-request-headers", "authorization, x-stainless-os"}});
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(header_of(preflight, "access-control-allow-origin"), "*");
  EXPECT_EQ(header_of(preflight, "access-control-allow-methods"), "POST");
  EXPECT_EQ(header_of(preflight, "access-control-allow-headers"), "authorization, x-stainless-os");
  for (const char* path : {"/v1/models", "/nowhere", "/health"}) {
    EXPECT_EQ(header_of(ask("GET", path), "access-control-allow-origin"), "*") << path;
  }
}

TEST_F(Doors, ThatAreNotThereAnswerInOpenAisShape) {
  client.options.has_page = false;
  EXPECT_EQ(ask("GET", "/").status, 404);
  for (const char* path : {"/v1/embeddings", "/v2/models", "/v1/memory/unknown", "/%2e%2e/etc"}) {
    const http::Response response = ask("POST", path);
    EXPECT_EQ(response.status, 404) << path;
    expect_openai_error(response);
  }
  const http::Response other = ask("DELETE", "/v1/models");
  EXPECT_EQ(other.status, 405);
  EXPECT_EQ(header_of(other, "allow"), "GET");
  expect_openai_error(other);
  EXPECT_EQ(ask("GET", "//v1//models/").status, 200);
}

TEST_F(Doors, TakeNoCompressedBodies) {
  EXPECT_EQ(ask("POST", "/v1/completions", {{"content-encoding", "gzip"}}).status, 415);
  EXPECT_EQ(ask("POST", "/v1/completions", {{"content-encoding", "identity"}}).status, 400);
}

TEST_F(Doors, CloseWhenTheServerDrains) {
  const auto running = client.begin("POST", "/v1/completions", kBody);
  client.wait_for_sequences(1);
  EXPECT_EQ(ask("GET", "/ready").status, 200);
  client.service().drain();
  EXPECT_EQ(ask("GET", "/ready").status, 503);
  EXPECT_EQ(ask("GET", "/health").status, 503);
  const http::Response late = client.ask("POST", "/v1/completions", kBody);
  EXPECT_EQ(late.status, 503);
  EXPECT_NE(header_of(late, "retry-after"), "");
  expect_openai_error(late);
  EXPECT_EQ(client.finish(*running).status, 200);
}

TEST_F(Doors, GiveTheServersOwnErrorsOpenAisShape) {
  const auto [body, type] = client.service().handler().error(413, "expected less");
  http::Response response{.status = 413, .headers = {{"content-type", type}}, .body = body};
  expect_openai_error(response);
  EXPECT_THAT(body, HasSubstr("request_too_large"));
}

}  // namespace
}  // namespace memlayers::testing
