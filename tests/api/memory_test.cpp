// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "support/api_client.h"
#include "support/store_testing.h"
#include "support/testing.h"

namespace memlayers::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class MemoryOverHttp : public ::testing::Test {
 protected:
  MemoryOverHttp() { client.engine.add_memory(folder.path()); }
  // The bytes of a patch file that writes these slots.
  std::string file_of(int writer, std::vector<std::int64_t> slots) {
    const std::string path = files / ("p" + std::to_string(writer) + ".safetensors");
    write_patch(path, SmallPool().patch(writer, std::move(slots)));
    return read_file(path);
  }
  http::Response upload(const std::string& bytes, http::Fields headers = {}) {
    return client.ask("POST", "/v1/memory/patches", bytes, std::move(headers));
  }
  Json applied(int writer, std::vector<std::int64_t> slots) {
    const http::Response response = upload(file_of(writer, std::move(slots)));
    EXPECT_EQ(response.status, 200) << response.body;
    return Json::parse(response.body);
  }
  std::uint64_t version() { return client.get("/v1/memory")["version"]; }
  int status_of(const std::string& method, const std::string& path, http::Fields headers = {}) {
    return client.ask(method, path, "", std::move(headers)).status;
  }
  TempDir folder, files;
  ApiClient client;
};

TEST_F(MemoryOverHttp, TellsOfItsPoolAndPatches) {
  applied(1, {3, 4});
  const Json memory = client.get("/v1/memory");
  EXPECT_EQ(memory["pool"], kPoolId);
  EXPECT_EQ(memory["slots"], 40);
  EXPECT_EQ(memory["width"], 5);
  EXPECT_EQ(memory["row_dtype"], "float32");
  EXPECT_EQ(memory["health"], "good");
  EXPECT_EQ(memory["overridden"], 2);
  ASSERT_EQ(memory["patches"].size(), 1U);
  EXPECT_EQ(memory["patches"][0]["id"], "p1");
  EXPECT_EQ(memory["patches"][0]["rows"], 2);
  EXPECT_EQ(memory["held_versions"], Json({memory["version"]}));
}

TEST_F(MemoryOverHttp, AppliesAPatchOnceAndListsConflicts) {
  const Json first = applied(1, {3, 4});
  EXPECT_EQ(first["was_there"], false);
  EXPECT_EQ(first["conflicts"], Json::array());
  const Json again = applied(1, {3, 4});
  EXPECT_EQ(again["was_there"], true);
  EXPECT_EQ(again["version"], first["version"]);
  const Json second = applied(2, {4, 5});
  EXPECT_EQ(second["conflicts"], Json({{{"slot", 4}, {"earlier", "p1"}, {"later", "p2"}}}));
  EXPECT_EQ(second["num_conflicts"], 1);
  EXPECT_EQ(client.get("/v1/memory/patches/p1")["overwritten_by"],
            Json({{{"patch", "p2"}, {"slots", 1}}}));
}

TEST_F(MemoryOverHttp, RollsBackAppliesAgainAndKeeps) {
  applied(1, {3});
  EXPECT_EQ(status_of("DELETE", "/v1/memory/patches/p1"), 200);
  EXPECT_EQ(client.get("/v1/memory")["patches"].size(), 0U);
  EXPECT_EQ(client.get("/v1/memory/patches")["undone"][0]["id"], "p1");
  EXPECT_EQ(status_of("POST", "/v1/memory/patches/p1/reapply"), 200);
  EXPECT_EQ(status_of("POST", "/v1/memory/patches/p1/keep"), 200);
  const http::Response kept = client.ask("DELETE", "/v1/memory/patches/p1");
  EXPECT_EQ(kept.status, 409);
  EXPECT_EQ(header_of(kept, "x-should-retry"), "false");
  expect_openai_error(kept);
  for (const auto& [method, path] :
       {std::pair("DELETE", "/v1/memory/patches/none"), std::pair("GET", "/v1/memory/patches/none"),
        std::pair("POST", "/v1/memory/patches/none/keep"),
        std::pair("POST", "/v1/memory/patches/none/reapply")}) {
    EXPECT_EQ(status_of(method, path), 404) << path;
  }
}

TEST_F(MemoryOverHttp, EditsOnlyTheVersionThatWasMeant) {
  const std::string at = std::to_string(version());
  const std::string file = file_of(1, {3});
  EXPECT_EQ(upload(file, {{"if-match", "\"" + at + "9\""}}).status, 412);
  EXPECT_EQ(client.get("/v1/memory")["patches"].size(), 0U);
  const http::Response edited = upload(file, {{"if-match", "\"" + at + "\""}});
  EXPECT_EQ(edited.status, 200);
  const std::string now = std::to_string(version());
  EXPECT_EQ(header_of(edited, "etag"), "\"" + now + "\"");
  EXPECT_EQ(header_of(edited, "x-memlayers-pool-version"), now);
  EXPECT_EQ(status_of("DELETE", "/v1/memory/patches/p1", {{"if-match", at}}), 412);
  EXPECT_EQ(status_of("DELETE", "/v1/memory/patches/p1", {{"if-match", now}}), 200);
  EXPECT_EQ(upload(file, {{"if-match", "seven"}}).status, 400);
}

TEST_F(MemoryOverHttp, RefusesFilesThatAreNoPatches) {
  for (const std::string& bytes : {std::string(), std::string("not a patch"),
                                   file_of(1, {3}).substr(0, 200), file_of(2, {400})}) {
    const http::Response response = upload(bytes);
    EXPECT_EQ(response.status, 400) << response.body;
    expect_openai_error(response);
    EXPECT_EQ(response.body.find("body-"), std::string::npos) << "names our file";
  }
  EXPECT_EQ(client.get("/v1/memory")["patches"].size(), 0U);
}

TEST_F(MemoryOverHttp, TeachesInJobs) {
  const Json job = client.post("/v1/memory/teach",
                               {{"facts",
                                 {{{"prompt", "a heron is"},
                                   {"answer", "a bird"},
                                   {"paraphrases", {"herons are"}},
                                   {"subject", "heron"}}}},
                                {"background", {"one", "two"}},
                                {"gate", {{"recall", 0.9}, {"keep", 1}, {"perplexity", 1.02}}},
                                {"note", "birds"}},
                               202);
  EXPECT_EQ(job["state"], "queued");
  const auto taught = client.engine.fake_memory().taught();
  ASSERT_EQ(taught.size(), 1U);
  EXPECT_EQ(Json::parse(taught[0].facts_jsonl)["answer"], "a bird");
  EXPECT_EQ(Json::parse(taught[0].facts_jsonl)["subject"], "heron");
  EXPECT_EQ(taught[0].background, "one\ntwo\n");
  EXPECT_EQ(taught[0].least_recall, 0.9);
  EXPECT_EQ(taught[0].least_kept, 1);
  EXPECT_EQ(taught[0].most_perplexity_ratio, 1.02);
  EXPECT_EQ(taught[0].note, "birds");
  const std::string path = "/v1/memory/teach/" + job["id"].get<std::string>();
  EXPECT_EQ(client.get(path)["state"], "queued");
  EXPECT_EQ(client.get("/v1/memory/teach")["jobs"].size(), 1U);
  EXPECT_EQ(status_of("DELETE", path), 200);
  EXPECT_EQ(client.get(path)["state"], "cancelled");
  EXPECT_EQ(status_of("GET", "/v1/memory/teach/none"), 404);
  client.engine.fake_memory().set_job({.id = "done", .state = "applied"});
  EXPECT_EQ(status_of("DELETE", "/v1/memory/teach/done"), 409);
}

TEST_F(MemoryOverHttp, NamesWhatIsWrongWithALesson) {
  const Json fact{{"prompt", "a"}, {"answer", "b"}};
  const auto param = [&](const Json& body) {
    const Json error = client.error("/v1/memory/teach", body);
    return error["param"].is_null() ? "" : error["param"].get<std::string>();
  };
  EXPECT_EQ(param({{"facts", Json::array()}}), "facts");
  EXPECT_EQ(param({{"facts", {{{"prompt", "a"}}}}}), "facts[0]");
  EXPECT_EQ(param({{"facts", {{{"prompt", ""}, {"answer", "b"}}}}}), "facts[0].prompt");
  EXPECT_EQ(param({{"facts", {{{"prompt", "a"}, {"answer", "b"}, {"unseen", {1}}}}}}),
            "facts[0].unseen[0]");
  EXPECT_EQ(param({{"facts", {{{"prompt", "a"}, {"answer", "b"}, {"subject", ""}}}}}),
            "facts[0].subject");
  EXPECT_EQ(param({{"facts", {fact}}, {"gate", {{"recall", 2}}}}), "gate.recall");
  EXPECT_EQ(param({{"facts", {fact}}, {"gate", {{"recal", 1}}}}), "gate.recal");
  EXPECT_EQ(param({{"facts", {fact}}, {"epochs", 3}}), "epochs");
}

TEST_F(MemoryOverHttp, StreamsTheProgressOfAJob) {
  client.options.comment_s = 0.005;
  auto& memory = client.engine.fake_memory();
  memory.set_job({.id = "job", .state = "learning", .step = 1});
  const auto exchange =
      client.begin("GET", "/v1/memory/teach/job", "", {{"accept", "text/event-stream"}});
  const auto wait_for = [&](const std::string& text) {
    while (exchange->response().body.find(text) == std::string::npos) exchange->wait_for_news();
  };
  wait_for("\"step\":1,");
  memory.set_job({.id = "job", .state = "learning", .step = 2});
  wait_for("\"step\":2,");
  wait_for(": no change\n\n");
  memory.set_job({.id = "job", .state = "applied", .step = 3, .patch = "p1"});
  const Events events = events_of(client.finish(*exchange).body);
  EXPECT_TRUE(events.is_done);
  EXPECT_EQ(events.chunks.size(), 3U);
  EXPECT_EQ(events.chunks.back()["patch"], "p1");

  memory.set_job({.id = "job", .state = "learning"});
  const auto left = client.begin("GET", "/v1/memory/teach/job/events");
  while (left->response().body.empty()) left->wait_for_news();
  left->leave();
  EXPECT_FALSE(left->is_over());
}

TEST_F(MemoryOverHttp, ExplainsAnswers) {
  const Json explained =
      client.post("/v1/memory/explain",
                  {{"prompt", "a"}, {"answer", "b"}, {"top", 3}, {"memory", {{"off", true}}}});
  EXPECT_EQ(explained, Json({{"prompt", "a"}, {"answer", "b"}, {"top", 3}, {"off", true}}));
  EXPECT_EQ(client.error("/v1/memory/explain", {{"prompt", ""}})["param"], "prompt");
  EXPECT_EQ(client.error("/v1/memory/explain", {{"prompt", "a"}, {"top", 0}})["param"], "top");
}

TEST_F(MemoryOverHttp, KeepsCanaries) {
  const Json canary =
      client.post("/v1/memory/canaries", {{"id", "c1"}, {"prompt", "a"}, {"answer", "no"}});
  EXPECT_EQ(canary["is_well"], false);
  client.post("/v1/memory/canaries", {{"prompt", "b"}, {"answer", "ok"}, {"rolls_back", true}});
  EXPECT_EQ(client.get("/v1/memory/canaries")["canaries"].size(), 2U);
  const std::string metrics = client.ask("GET", "/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("memlayers:canaries{model_name=\"letters\"} 2\n"));
  EXPECT_THAT(metrics, HasSubstr("memlayers:canaries_failing{model_name=\"letters\"} 1\n"));
  EXPECT_EQ(status_of("DELETE", "/v1/memory/canaries/c1"), 200);
  EXPECT_EQ(status_of("DELETE", "/v1/memory/canaries/c1"), 404);
  EXPECT_EQ(
      client.error("/v1/memory/canaries", {{"id", ""}, {"prompt", "a"}, {"answer", "b"}})["param"],
      "id");
}

TEST_F(MemoryOverHttp, TakesCanariesOfSomeLength) {
  const auto set = [&](std::size_t prompt, std::size_t answer) {
    const Json body{{"prompt", std::string(prompt, 'a')}, {"answer", std::string(answer, 'b')}};
    return client.ask("POST", "/v1/memory/canaries", body.dump()).status;
  };
  EXPECT_EQ(set(16384, 16384), 200);
  EXPECT_EQ(set(16385, 1), 400);
  EXPECT_EQ(set(1, 16385), 400);
}

TEST_F(MemoryOverHttp, IsChosenPerRequest) {
  client.post(
      "/v1/completions",
      {{"prompt", "a"},
       {"memory",
        {{"version", 7}, {"min_pool_version", 5}, {"without", {"p1", "p2"}}, {"off", true}}}});
  const api::MemoryView view = client.engine.jobs().back().memory;
  EXPECT_EQ(view.version, 7U);
  EXPECT_EQ(view.min_version, 5U);
  EXPECT_EQ(view.without, (std::vector<std::string>{"p1", "p2"}));
  EXPECT_TRUE(view.off);
}

TEST_F(MemoryOverHttp, NamesItsVersionInEveryAnswer) {
  for (int edits = 1; edits < 3; ++edits) {
    applied(edits, {edits});
    const http::Response answer = client.ask("POST", "/v1/completions", R"({"prompt":"a"})");
    EXPECT_EQ(Json::parse(answer.body)["memory"]["version"], version());
    EXPECT_EQ(header_of(answer, "x-memlayers-pool-version"), std::to_string(version()));
  }
}

TEST_F(MemoryOverHttp, MakesAnAnswerAgainByItsReceipt) {
  client.engine.say("[assistant]", "a heron");
  const Json answer =
      client.post("/v1/chat/completions", {{"messages", {{{"role", "user"}, {"content", "hi"}}}},
                                           {"n", 2},
                                           {"stop", "never"},
                                           {"logit_bias", {{"65", 1}}},
                                           {"logprobs", true},
                                           {"receipt", true}});
  const Json receipt = answer["receipt"];
  EXPECT_EQ(receipt["pool_version"], version());
  const Json again = client.post("/v1/memory/replay", {{"receipt", receipt}});
  EXPECT_EQ(again["is_same"], true);
  EXPECT_EQ(again["choices"][1]["text"], "a heron");
  const auto jobs = client.engine.jobs();
  EXPECT_EQ(jobs[2].prompt, jobs[0].prompt);
  EXPECT_EQ(jobs[3].options.seed, jobs[1].options.seed);
  EXPECT_EQ(jobs[2].options.logit_bias, jobs[0].options.logit_bias);
  EXPECT_EQ(jobs[2].options.max_tokens, jobs[0].options.max_tokens);
  EXPECT_EQ(jobs[2].memory.version, version());

  client.engine.say("[assistant]", "a stork");
  EXPECT_EQ(client.post("/v1/memory/replay", {{"receipt", receipt}})["is_same"], false);
  client.engine.weights = std::string(32, 'f');
  EXPECT_EQ(client.error("/v1/memory/replay", {{"receipt", receipt}}, 409)["code"],
            "other_weights");
  EXPECT_EQ(client.error("/v1/memory/replay", {{"receipt", {{"kind", "x"}}}})["param"],
            "receipt.kind");

  const http::Response stream =
      client.ask("POST", "/v1/completions", R"({"prompt":"a","stream":true,"receipt":true})");
  EXPECT_TRUE(events_of(stream.body).chunks.back().contains("receipt"));
}

TEST(MemoryOfAModelWithoutOne, IsNotThere) {
  ApiClient client;
  EXPECT_EQ(client.get("/v1/memory", 404)["error"]["code"], "no_memory");
  EXPECT_EQ(client.post("/v1/completions", {{"prompt", "a"}}).contains("memory"), false);
}

}  // namespace
}  // namespace memlayers::testing
