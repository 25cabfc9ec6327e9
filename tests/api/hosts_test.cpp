// SPDX-License-Identifier: Apache-2.0
#include "api/hosts.h"

#include <gtest/gtest.h>

#include "support/api_client.h"

namespace memlayers::testing {
namespace {

TEST(Hosts, AreNamesWithoutPorts) {
  EXPECT_EQ(api::host_of("LocalHost:8080"), "localhost");
  EXPECT_EQ(api::host_of("localhost."), "localhost");
  EXPECT_EQ(api::host_of("[::1]:80"), "[::1]");
  EXPECT_EQ(api::host_of("[::1]"), "[::1]");
  EXPECT_EQ(api::host_of(""), "");
}

TEST(Hosts, OfThisMachineAreNoOthers) {
  for (const char* name : {"localhost", "127.0.0.1", "127.255.3.4", "[::1]"}) {
    EXPECT_TRUE(api::is_loopback_host(name)) << name;
  }
  for (const char* name : {"", "127.evil.example", "127.0.0.1.evil.example", "127.0.0", "127.0.0.",
                           "127.0.0.1.", "127.0.0.256", "127.-1.0.1", "128.0.0.1", "localhost.evil",
                           "[::2]", "::1", "127..0.1", "127.0.0.1 "}) {
    EXPECT_FALSE(api::is_loopback_host(name)) << name;
  }
}

class HostsOfAServer : public ::testing::Test {
 protected:
  int status(const std::string& host, const std::string& path = "/v1/models") {
    return client.ask("GET", path, "", {{"host", host}}).status;
  }
  ApiClient client;
};

TEST_F(HostsOfAServer, WithoutKeysAreKnown) {
  client.options.hosts = {"192.168.1.5", "Models.Example", "[fe80::1]"};
  for (const char* host : {"localhost:8080", "127.0.0.1", "[::1]:9", "192.168.1.5:8080",
                           "models.example", "[fe80::1]:80", ""}) {
    EXPECT_EQ(status(host), 200) << host;
  }
  EXPECT_EQ(client.ask("GET", "/v1/models").status, 200) << "no browser";
  for (const char* path : {"/v1/models", "/v1/memory", "/health", "/"}) {
    EXPECT_EQ(status("evil.example:8080", path), 403) << path;
  }
  const http::Response refused =
      client.ask("POST", "/v1/completions", R"({"prompt":"a"})", {{"host", "evil.example"}});
  EXPECT_EQ(refused.status, 403);
  expect_openai_error(refused);
  EXPECT_NE(refused.body.find("unknown_host"), std::string::npos);
  EXPECT_EQ(client.ask("OPTIONS", "/v1/models", "", {{"host", "evil.example"}}).status, 403);
}

TEST_F(HostsOfAServer, WithKeysAreAny) {
  client.options.keys.ask = {"asker"};
  const http::Response answer = client.ask(
      "GET", "/v1/models", "", {{"host", "evil.example"}, {"authorization", "Bearer asker"}});
  EXPECT_EQ(answer.status, 200);
}

}  // namespace
}  // namespace memlayers::testing
