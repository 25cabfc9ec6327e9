// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>

#include "api/routes.h"
#include "support/api_client.h"

namespace memlayers::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

// Of Prometheus' text format: the samples by name and labels. Fails where a line is none, a family
// has no type, or buckets do not grow.
std::map<std::string, double> samples_of(const std::string& page) {
  std::map<std::string, double> samples;
  std::map<std::string, std::string> types;
  std::istringstream lines(page);
  double bucket = 0;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first, second, name, kind;
    if (line.starts_with("# TYPE ")) {
      words >> first >> second >> name >> kind;
      EXPECT_TRUE(types.emplace(name, kind).second) << "twice: " << line;
      bucket = 0;
      continue;
    }
    if (line.starts_with("# HELP ")) continue;
    const std::size_t end = line.rfind(' ');
    EXPECT_NE(end, std::string::npos) << line;
    const double value = std::stod(line.substr(end + 1));
    EXPECT_TRUE(samples.emplace(line.substr(0, end), value).second) << "twice: " << line;
    std::string family = line.substr(0, line.find('{'));
    if (family.ends_with("_bucket")) {
      EXPECT_GE(value, bucket) << line;
      bucket = value;
    }
    for (const char* suffix : {"_bucket", "_sum", "_count"}) {
      if (!types.contains(family) && family.ends_with(suffix)) {
        family.resize(family.size() - std::string(suffix).size());
      }
    }
    EXPECT_TRUE(types.contains(family)) << "no type: " << line;
  }
  return samples;
}

class Operations : public ::testing::Test {
 protected:
  ApiClient client;
};

TEST_F(Operations, HaveTheMetricsOfVllmAndOfLlamaCpp) {
  client.engine.say("a", "bcd");
  client.post("/v1/completions", {{"prompt", "a"}, {"n", 2}});
  client.post("/v1/completions", {{"prompt", "a"}, {"max_tokens", 1}});
  const http::Response page = client.ask("GET", "/metrics");
  EXPECT_EQ(header_of(page, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
  const auto samples = samples_of(page.body);
  const auto value = [&](const std::string& name, const std::string& more = "") {
    const auto found = samples.find(name + "{model_name=\"letters\"" + more + "}");
    EXPECT_NE(found, samples.end()) << name;
    return found == samples.end() ? -1 : found->second;
  };
  for (const char* name :
       {"vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
        "llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total",
        "llamacpp:prompt_tokens_seconds", "llamacpp:predicted_tokens_seconds",
        "llamacpp:requests_processing", "llamacpp:requests_deferred"}) {
    EXPECT_GE(value(name), 0) << name;
  }
  EXPECT_EQ(value("vllm:prompt_tokens_total"), 6);
  EXPECT_EQ(value("vllm:generation_tokens_total"), 9);
  EXPECT_EQ(value("vllm:request_success_total", ",finished_reason=\"stop\""), 2);
  EXPECT_EQ(value("vllm:request_success_total", ",finished_reason=\"length\""), 1);
  EXPECT_EQ(value("vllm:time_to_first_token_seconds_count"), 3);
  EXPECT_EQ(value("vllm:inter_token_latency_seconds_count"), 6);
  EXPECT_EQ(value("vllm:e2e_request_latency_seconds_count"), 3);
  EXPECT_EQ(value("vllm:e2e_request_latency_seconds_bucket", ",le=\"+Inf\""), 3);
}

TEST_F(Operations, SayHowTheServerIs) {
  EXPECT_EQ(client.get("/health")["status"], "ok");
  client.engine.trouble = "pool/chunk-0: pages are lost";
  const Json degraded = client.get("/health");
  EXPECT_EQ(degraded["status"], "degraded");
  EXPECT_EQ(degraded["trouble"], "pool/chunk-0: pages are lost");
}

TEST_F(Operations, NameTheModel) {
  const Json list = client.get("/v1/models");
  EXPECT_EQ(list["object"], "list");
  const Json& model = list["data"][0];
  EXPECT_EQ(model["id"], "letters");
  EXPECT_EQ(model["object"], "model");
  EXPECT_TRUE(model["created"].is_number_integer());
  EXPECT_TRUE(model["owned_by"].is_string());
  EXPECT_EQ(model["max_model_len"], 512);
  EXPECT_EQ(client.get("/v1/models/letters")["id"], "letters");
  EXPECT_EQ(client.get("/v1/models/other", 404)["error"]["code"], "model_not_found");
  EXPECT_EQ(client.get("/v1/models/org/other", 404)["error"]["code"], "model_not_found");
}

TEST_F(Operations, ServeThePageUnderItsPolicy) {
  client.options.keys.ask = {"asker"};  // the page asks for it
  const http::Response page = client.ask("GET", "/");
  EXPECT_THAT(page.body, ::testing::StartsWith("<!doctype html>"));
  EXPECT_EQ(header_of(page, "content-type"), "text/html; charset=utf-8");
  EXPECT_THAT(header_of(page, "content-security-policy"), HasSubstr("default-src 'none'"));
}

TEST_F(Operations, LogLinesThatNobodyForges) {
  std::vector<std::string> lines;
  client.options.log = [&](const std::string& line) { lines.push_back(line); };
  client.options.log_format = api::LogFormat::kJson;
  client.options.logs_access = true;
  client.post("/v1/completions", {{"prompt", "secret words"}});
  const http::Handler handler = client.service().handler();
  handler.log(request_of("GET", "/a\nb\x1b[2J\xff\xe2\x80\xae"), 404, 10, 0.5);
  ASSERT_EQ(lines.size(), 2U);
  const Json answer = Json::parse(lines[0]);
  EXPECT_EQ(answer["event"], "answer");
  EXPECT_EQ(answer["completion_tokens"], 4);
  EXPECT_EQ(answer["id"], "request-1");
  EXPECT_EQ(Json::parse(lines[1])["status"], 404);
  for (const std::string& line : lines) {
    EXPECT_TRUE(std::ranges::all_of(line, [](char c) { return c >= ' ' && c <= '~'; })) << line;
    EXPECT_EQ(line.find("secret"), std::string::npos);
  }
}

TEST_F(Operations, LogTextAndPromptsIfAsked) {
  std::vector<std::string> lines;
  client.options.log = [&](const std::string& line) { lines.push_back(line); };
  client.options.logs_prompts = true;
  client.post("/v1/completions", {{"prompt", "secret\nwords"}});
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_THAT(lines[0], HasSubstr(" answer id=request-1 kind=completion "));
  EXPECT_THAT(lines[0], HasSubstr("secret\\nwords"));
  const http::Handler handler = client.service().handler();
  handler.log(request_of("GET", "/"), 200, 1, 0.5);
  EXPECT_EQ(lines.size(), 1U);  // no access log unless asked
}

// Every route is described, and what the document says of a body is what requests are checked by.
TEST_F(Operations, AreDescribedByAnOpenApiDocument) {
  const Json document = client.get("/openapi.json");
  EXPECT_EQ(document["openapi"], "3.1.0");
  std::set<std::string> ids;
  for (const api::Route& route : api::all_routes()) {
    std::string path(route.path), method(route.method);
    std::erase(path, '*');
    for (char& c : method) c = static_cast<char>(std::tolower(c));
    ASSERT_TRUE(document["paths"].contains(path)) << path;
    const Json& operation = document["paths"][path][method];
    EXPECT_FALSE(operation.value("summary", "").empty()) << path;
    EXPECT_EQ(operation.contains("requestBody"), route.body != api::Body::kNone) << path;
    EXPECT_EQ(operation.contains("security"), route.right != api::Right::kNone) << path;
    if (route.body != api::Body::kJson) continue;
    const Json& schema = operation["requestBody"]["content"]["application/json"]["schema"];
    EXPECT_EQ(schema["properties"].size(), route.fields().size()) << path;
    EXPECT_EQ(schema["additionalProperties"], false);
  }
  EXPECT_EQ(document["paths"]["/v1/completions"]["post"]["requestBody"]["content"]
                    ["application/json"]["schema"]["properties"]["temperature"]["maximum"],
            2);
}

}  // namespace
}  // namespace memlayers::testing
