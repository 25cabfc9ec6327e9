// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <array>
#include <csignal>
#include <nlohmann/json.hpp>

#include "cli/command_testing.h"
#include "memlayers/store.h"
#include "support/http_client.h"

namespace memlayers {
namespace {

using nlohmann::json;
using testing::expect_error;
using ::testing::HasSubstr;
using testing::http_post;
using testing::http_request;
using testing::HttpAnswer;
using testing::HttpClient;
using testing::run_command;
using testing::TempDir;
using testing::write_file;

// `memlayers serve` with these arguments, at a port of its own.
class Served {
 public:
  explicit Served(std::vector<std::string> arguments) {
    std::array<int, 2> errors{};
    EXPECT_EQ(pipe(errors.data()), 0);
    arguments.insert(arguments.begin(),
                     {std::filesystem::read_symlink("/proc/self/exe").parent_path() / "memlayers",
                      "serve", "--port", "0"});
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    child_ = fork();
    if (child_ == 0) {
      dup2(errors[1], 2);
      for (const int end : errors) close(end);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(errors[1]);
    errors_ = errors[0];
    const std::string line = next_line();
    const auto colon = line.rfind(':');
    EXPECT_THAT(line, HasSubstr(" at http://127.0.0.1:"));
    port_ = static_cast<std::uint16_t>(std::stoi(line.substr(colon + 1)));
  }
  ~Served() {
    if (child_ > 0) {
      kill(child_, SIGKILL);
      waitpid(child_, nullptr, 0);
    }
    close(errors_);
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  std::uint16_t port() const { return port_; }
  void signal(int number) const { kill(child_, number); }
  int wait() {
    int status = 0;
    waitpid(std::exchange(child_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  HttpAnswer get(const std::string& path, const std::string& fields = "") const {
    HttpClient client(port_);
    return client.ask(http_request("GET", path, fields));
  }
  HttpAnswer post(const std::string& path, const json& body, const std::string& fields = "") const {
    HttpClient client(port_);
    return client.ask(http_post(path, body.dump(), "content-type: application/json\r\n" + fields));
  }
  std::string next_line() {
    std::string line;
    for (char c = 0; read(errors_, &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }

 private:
  pid_t child_ = -1;
  int errors_ = -1;
  std::uint16_t port_ = 0;
};

class ServeCommand : public ::testing::Test {
 protected:
  ServeCommand() {
    ModelConfig config = testing::tiny_model_config();
    config.context = 400;
    testing::write_model(dir_ / "model", config);
  }
  std::string model() const { return dir_ / "model"; }
  // A patch of all rows, as a file.
  std::string patch(const std::string& id) const {
    const Snapshot now = StoreReader::open(dir_ / "model/pool").snapshot();
    Patch made{.id = id, .pool = now.pool_id(), .width = now.width()};
    for (std::int64_t slot = 0; slot < now.rows(); ++slot) made.slots.push_back(slot);
    std::vector<float> rows(static_cast<std::size_t>(now.rows() * now.width()), 0.7F);
    const auto bytes = std::as_bytes(std::span(rows));
    made.rows.assign(bytes.begin(), bytes.end());
    write_patch(dir_ / id, made);
    return testing::read_file(dir_ / id);
  }
  // The bytes of a request whose answer streams, on a connection that ends with it.
  static std::string streamed(std::int64_t tokens) {
    json body = question(tokens);
    body["stream"] = true;
    return http_post("/v1/completions", body.dump(),
                     "content-type: application/json\r\nconnection: close\r\n");
  }
  static json question(std::int64_t tokens) {
    return {{"prompt", "the red otter"}, {"max_tokens", tokens}, {"temperature", 0}};
  }

  TempDir dir_;
};

TEST_F(ServeCommand, AnswersAndEditsAndStreamsKeepTheirVersion) {
  const Served served({model()});
  const HttpAnswer before = served.post("/v1/completions", question(8));
  ASSERT_EQ(before.status, 200) << before.body;
  HttpClient streaming(served.port());
  streaming.send(streamed(300));
  const std::string begun = streaming.read(400);  // it streams
  EXPECT_THAT(begun, HasSubstr("200 OK"));
  HttpClient editor(served.port());
  const HttpAnswer applied = editor.ask(http_post("/v1/memory/patches", patch("p")));
  ASSERT_EQ(applied.status, 200) << applied.body;
  const HttpAnswer after = served.post("/v1/completions", question(8));
  EXPECT_NE(json::parse(after.body)["choices"][0]["text"],
            json::parse(before.body)["choices"][0]["text"])
      << "a patch that changes nothing would test nothing";
  EXPECT_THAT(streaming.read_all(), HasSubstr("[DONE]"));
  EXPECT_EQ(StoreReader::open(dir_ / "model/pool").snapshot().patches().size(), 1U) << "durable";
}

TEST_F(ServeCommand, AClientThatLeavesIsCancelled) {
  const Served served({model(), "--slots", "1"});
  {
    HttpClient leaving(served.port());
    leaving.send(streamed(390));
    leaving.read(300);
    leaving.close();
  }
  EXPECT_EQ(served.post("/v1/completions", question(2)).status, 200) << "the one slot is free";
}

TEST_F(ServeCommand, DrainsAtTheFirstSignal) {
  Served served({model()});
  HttpClient streaming(served.port());
  streaming.send(streamed(300));
  streaming.read(300);
  served.signal(SIGTERM);
  EXPECT_THAT(streaming.read_all(), HasSubstr("[DONE]")) << "what was begun is finished";
  EXPECT_EQ(served.wait(), 0);
}

TEST_F(ServeCommand, LeavesAtTheSecond) {
  Served served({model(), "--drain", "60"});
  HttpClient streaming(served.port());
  streaming.send(streamed(395));
  streaming.read(300);
  served.signal(SIGTERM);
  served.signal(SIGINT);
  const int code = served.wait();
  EXPECT_TRUE(code == 128 + SIGINT || code == 128 + SIGTERM || code == 0) << code;
}

TEST_F(ServeCommand, ReadsItsKeysAnewWhenToldSo) {
  write_file(dir_ / "keys", "first\n");
  const Served served({model(), "--api-key-file", dir_ / "keys"});
  const auto status = [&](const std::string& key) {
    return served.get("/v1/models", "authorization: Bearer " + key + "\r\n").status;
  };
  EXPECT_EQ(status("first"), 200);
  EXPECT_EQ(status("second"), 401);
  write_file(dir_ / "keys", "second\n");
  served.signal(SIGHUP);
  while (status("second") != 200) usleep(1000);
  EXPECT_EQ(status("first"), 401);
}

TEST_F(ServeCommand, TakesOptionsFromASection) {
  write_file(dir_ / "serve.toml", "[serve]\nname = \"tom\"\nqueue = 3\naccess_log = true\n");
  const Served served({model(), "--config", dir_ / "serve.toml"});
  EXPECT_THAT(served.get("/v1/models").body, HasSubstr("tom"));
  write_file(dir_ / "wrong.toml", "[serve]\nslotz = 3\n");
  expect_error(run_command({"serve", model(), "--config", dir_ / "wrong.toml"}), 1,
               "wrong.toml:2: unknown key slotz; did you mean slots?");
  write_file(dir_ / "wrong.toml", "[serve]\nslots = \"many\"\n");
  expect_error(run_command({"serve", model(), "--config", dir_ / "wrong.toml"}), 1,
               "wrong.toml:2: slots");
}

TEST_F(ServeCommand, KnowsItsNamesWhereNobodyNeedsAKey) {
  write_file(dir_ / "serve.toml", "[serve]\nallow_host = [\"otter.example\", \"b.example\"]\n");
  const Served served({model(), "--config", dir_ / "serve.toml", "--connections", "2000"});
  const auto status = [&](const std::string& host) {
    HttpClient client(served.port());
    return client.ask("GET /v1/models HTTP/1.1\r\nhost: " + host + "\r\n\r\n").status;
  };
  EXPECT_EQ(status("localhost:1234"), 200);
  EXPECT_EQ(status("otter.example"), 200);
  EXPECT_EQ(status("b.example:80"), 200);
  EXPECT_EQ(status("c.example"), 403);
}

TEST_F(ServeCommand, RefusesToListenToOthersWithoutAKey) {
  expect_error(run_command({"serve", model(), "--host", "0.0.0.0", "--port", "0"}), 2,
               "--host 0.0.0.0: expected --api-key-file");
  expect_error(run_command({"serve", model(), "--slots", "0"}), 2, "--slots: expected at least 1");
  expect_error(run_command({"serve", model(), "--connections", "0"}), 2,
               "--connections: expected at least 1");
  expect_error(run_command({"serve", model(), "--connections-per-address", "0"}), 2,
               "--connections-per-address: expected at least 1");
  expect_error(run_command({"serve", dir_ / "nothing"}), 1, "nothing");
  expect_error(run_command({"serve", model(), "--api-key-file", dir_ / "none"}), 1, "none");
}

}  // namespace
}  // namespace memlayers
