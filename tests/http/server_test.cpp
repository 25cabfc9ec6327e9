// SPDX-License-Identifier: Apache-2.0
// Where a server listens, how it ends, and bodies in files.
#include "http/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <thread>

#include "http/served.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::http {
namespace {

using memlayers::testing::expect_error;
using memlayers::testing::http_post;
using memlayers::testing::http_request;
using memlayers::testing::HttpAnswer;
using memlayers::testing::HttpClient;
using memlayers::testing::read_file;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;
using ::testing::AllOf;
using ::testing::HasSubstr;

using Asked = Post<std::shared_ptr<Exchange>>;

Handler holding(Asked& asked) {
  return handler_of([&asked](std::shared_ptr<Exchange> exchange) { asked.put(exchange); });
}

// --- Where it listens
// -----------------------------------------------------------------------------

TEST(Server, ListensOnAnAddressOrLocalhost) {
  const std::string get = http_request("GET", "/");
  for (const std::string host : {"127.0.0.1", "localhost", "0.0.0.0"}) {
    Served served(handler_of(), {}, host);
    EXPECT_EQ(served.client().ask(get).status, 200) << host;
  }
}

TEST(Server, ListensOnIpv6) {
  Post<std::string> peers;
  const auto tell = [&](const std::shared_ptr<Exchange>& exchange) {
    peers.put(exchange->request().peer);
    echo(exchange);
  };
  for (const std::string host : {"::1", "[::1]", "::"}) {
    std::unique_ptr<Served> served;
    try {
      served = std::make_unique<Served>(handler_of(tell), Limits{}, host);
    } catch (const Error& error) {
      GTEST_SKIP() << "this machine has no IPv6: " << error.what();
    }
    EXPECT_EQ(served->client("::1").ask(http_request("GET", "/")).status, 200) << host;
    EXPECT_EQ(peers.take(), "::1");
    if (host != "::") continue;
    EXPECT_EQ(served->client("127.0.0.1").ask(http_request("GET", "/")).status, 200);
    EXPECT_EQ(peers.take(), "127.0.0.1") << "as it is, not as IPv6 has it";
  }
}

TEST(Server, SaysWhereItCannotListen) {
  const auto listen = [](const std::string& host, std::uint16_t port) {
    Server::listen(host, port, {}, handler_of());
  };
  const auto first = Server::listen("127.0.0.1", 0, {}, handler_of());
  const std::uint16_t port = first->port();
  expect_error([&] { listen("127.0.0.1", port); },
               AllOf(HasSubstr("127.0.0.1:" + std::to_string(port)), HasSubstr("in use")));
  expect_error([&] { listen("192.0.2.1", 0); }, HasSubstr("192.0.2.1:0: "));
  expect_error([&] { listen("2001:db8::1", 80); }, HasSubstr("[2001:db8::1]:80: "));
  // Whoever is asked for a name hears of it: it would be an outbound socket.
  expect_error([&] { listen("example.org", 80); },
               HasSubstr("\"example.org\": expected an IP address or localhost"));
  expect_error([&] { listen("", 80); }, HasSubstr("\"\": expected an IP address"));
  Limits limits;
  limits.body_folder = "/nowhere";
  expect_error([&] { Server::listen("127.0.0.1", 0, limits, handler_of()); },
               HasSubstr("/nowhere: expected a folder"));
}

TEST(Server, CanListenAgainAtOnce) {
  std::uint16_t port = 0;
  {
    Served served;
    port = served.server().port();
    HttpClient client = served.client();
    EXPECT_EQ(client.ask("GET / HTTP/1.0\r\n\r\n").status, 200);  // it closes: its is TIME_WAIT
  }
  EXPECT_EQ(Server::listen("127.0.0.1", port, {}, handler_of())->port(), port);
}

TEST(Server, NoDescriptorOfItsOwnReachesAnotherProgram) {
  Served served;
  HttpClient client = served.client();
  EXPECT_EQ(client.ask(http_request("GET", "/")).status, 200);
  int sockets = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    if (std::stoi(entry.path().filename()) <= 2) continue;  // whatever they are
    std::error_code gone;
    const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (target.find("socket:") == std::string::npos) continue;
    ++sockets;
    const std::string info = read_file("/proc/self/fdinfo/" + entry.path().filename().string());
    const std::size_t flags = info.find("flags:\t");
    if (flags == std::string::npos) continue;
    EXPECT_NE(std::stoi(info.substr(flags + 7), nullptr, 8) & 02000000, 0) << info;
  }
  EXPECT_GE(sockets, 3);
}

// A server that has no descriptors left waits for some, and does not turn round and round.
TEST(Server, OutlivesALackOfDescriptors) {
  Served served;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  HttpClient first = served.client();
  EXPECT_EQ(first.ask(http_request("GET", "/")).status, 200);
  const int next = ::dup(0);
  ::close(next);
  rlimit tight = before;
  tight.rlim_cur = static_cast<rlim_t>(next) + 1;  // one more: our own side of the connection
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  HttpClient hungry(served.server().port());
  hungry.send(http_request("GET", "/"));
  const std::clock_t start = std::clock();
  EXPECT_TRUE(hungry.is_silent(0.25));
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 0.1);
  EXPECT_EQ(first.ask(http_request("GET", "/")).status, 200) << "the others go on";
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(hungry.answer().status, 200);
}

// --- How it ends
// ----------------------------------------------------------------------------------

TEST(Server, DrainsWhatIsBeingAnswered) {
  Asked asked;
  auto server = Server::listen("127.0.0.1", 0, {}, holding(asked));
  std::thread thread([&] { server->run(); });
  HttpClient idle(server->port()), stream(server->port()), body(server->port());
  stream.send(http_request("GET", "/stream"));
  auto streamed = asked.take();
  streamed->begin(200, {});
  idle.send(http_request("GET", "/idle"));
  echo(asked.take());
  EXPECT_EQ(idle.answer().status, 200);
  body.send(http_request("POST", "/body", "content-length: 2\r\nexpect: 100-continue\r\n"));
  EXPECT_EQ(body.read(25).size(), 25U);

  server->drain(30);
  EXPECT_TRUE(idle.is_closed()) << "no next request";
  HttpClient late(server->port());
  const HttpAnswer refused = late.ask(http_request("GET", "/late"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.body, HasSubstr("the server is stopping"));
  body.send("ab");
  echo(asked.take());
  const HttpAnswer answered = body.answer();
  EXPECT_EQ(answered.body, "POST /body? ab");
  EXPECT_EQ(answered.headers.at("connection"), "close");
  EXPECT_TRUE(streamed->write("the rest"));
  streamed->end();
  const HttpAnswer whole = stream.answer();
  EXPECT_EQ(whole.body, "the rest");
  EXPECT_TRUE(whole.is_whole);
  stream.close();
  body.close();
  late.close();
  thread.join();  // run() is over by itself, long before its time
  EXPECT_EQ(server->connections(), 0U);
}

TEST(Server, CutsWhatTakesLongerThanTheDrain) {
  Asked asked;
  Post<bool> gone;
  auto server = Server::listen("127.0.0.1", 0, {}, holding(asked));
  std::thread thread([&] { server->run(); });
  HttpClient client(server->port());
  client.send(http_request("GET", "/"));
  const auto exchange = asked.take();
  exchange->on_gone([&] { gone.put(true); });
  exchange->begin(200, {});
  server->drain(0.05);
  EXPECT_TRUE(gone.take());
  EXPECT_FALSE(client.answer().is_whole);
  thread.join();
}

TEST(Server, StopsAtOnce) {
  Asked asked;
  Post<bool> gone;
  auto server = Server::listen("127.0.0.1", 0, {}, holding(asked));
  std::thread thread([&] { server->run(); });
  HttpClient client(server->port()), slow(server->port());
  slow.send("GET / HT");
  client.send(http_request("GET", "/"));
  const auto exchange = asked.take();
  exchange->on_gone([&] { gone.put(true); });
  server->stop();
  thread.join();
  EXPECT_TRUE(gone.take());
  EXPECT_TRUE(client.is_closed());
  EXPECT_TRUE(slow.is_closed());
  server->stop();
  server->drain(1);
}

TEST(Server, CanEndWithoutHavingRun) {
  const auto server = Server::listen("127.0.0.1", 0, {}, handler_of());
  HttpClient client(server->port());
  EXPECT_TRUE(client.send(http_request("GET", "/")));
}

// --- Bodies in files
// ------------------------------------------------------------------------------

class BodyFiles : public ::testing::Test {
 protected:
  BodyFiles() { limits_.body_folder = folder_.path(); }
  Handler handler() {
    Handler handler = holding(asked_);
    handler.admit = [](const Request&) {
      return Admission{.most_body_bytes = 5'000'000, .body_to_file = true};
    };
    return handler;
  }
  std::size_t files() const {
    const std::filesystem::directory_iterator begin(folder_.path());
    return static_cast<std::size_t>(std::distance(begin, std::filesystem::directory_iterator()));
  }
  void expect_no_files() const {  // removing one takes a while
    for (int i = 0; i < 2000 && files() > 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(files(), 0U);
  }

  TempDir folder_;
  Limits limits_;
  Asked asked_;
};

TEST_F(BodyFiles, AreThereAsLongAsTheExchange) {
  Served served(handler(), limits_);
  HttpClient client = served.client();
  std::string body;
  for (int i = 0; body.size() < 3'000'000; ++i) body += std::to_string(i);
  for (const bool is_chunked : {false, true}) {
    if (is_chunked) {
      std::string chunks;
      for (std::size_t at = 0; at < body.size(); at += 0xfff) {
        const std::string piece = body.substr(at, 0xfff);
        std::array<char, 16> size{};
        std::snprintf(size.data(), size.size(), "%zx\r\n", piece.size());
        chunks += size.data() + piece + "\r\n";
      }
      client.send(
          http_request("POST", "/", "transfer-encoding: chunked\r\n", chunks + "0\r\n\r\n"));
    } else {
      client.send(http_post("/", body));
    }
    auto exchange = asked_.take();
    ASSERT_TRUE(exchange->request().body_file.has_value());
    EXPECT_EQ(exchange->request().body, "");
    EXPECT_TRUE(read_file(*exchange->request().body_file) == body);
    exchange->answer({200, {}, "good"});
    EXPECT_EQ(client.answer().body, "good");
    EXPECT_TRUE(read_file(*exchange->request().body_file) == body) << "it may be read yet";
    exchange.reset();
    expect_no_files();
  }
}

TEST_F(BodyFiles, AreNeverHalf) {
  {
    Served served(handler(), limits_);
    HttpClient gone = served.client(), endless = served.client();
    gone.send(http_request("POST", "/", "content-length: 1000000\r\n", std::string(500'000, 'a')));
    gone.close();
    const std::string much = "4c4b41\r\n" + std::string(5'000'001, 'a');
    endless.send(http_request("POST", "/", "transfer-encoding: chunked\r\n", much));
    EXPECT_EQ(endless.answer().status, 413);
    expect_no_files();
  }
  limits_.body_grace_s = 0.05;
  Served served(handler(), limits_);
  HttpClient stalled = served.client();
  stalled.send(http_request("POST", "/", "content-length: 1000000\r\n", "a"));
  EXPECT_EQ(stalled.answer().status, 408);
  expect_no_files();
  EXPECT_TRUE(asked_.is_empty());
}

TEST_F(BodyFiles, OfNoBytesAreNone) {
  Served served(handler(), limits_);
  HttpClient client = served.client();
  client.send(http_post("/", ""));
  const auto exchange = asked_.take();
  EXPECT_FALSE(exchange->request().body_file.has_value());
  client.send("");
  exchange->answer({});
  EXPECT_EQ(client.answer().status, 200);
  // Of a chunked one that is found to be empty, there is a file.
  client.send(http_request("POST", "/", "transfer-encoding: chunked\r\n", "0\r\n\r\n"));
  const auto empty = asked_.take();
  ASSERT_TRUE(empty->request().body_file.has_value());
  EXPECT_EQ(read_file(*empty->request().body_file), "");
}

TEST_F(BodyFiles, AreRefusedWhereThereIsNoPlace) {
  Served served(handler(), limits_);
  const std::string moved = folder_.path() + "-moved";
  std::filesystem::rename(folder_.path(), moved);
  HttpClient client = served.client();
  const HttpAnswer answer = client.ask(http_post("/", "abc"));
  std::filesystem::rename(moved, folder_.path());
  EXPECT_EQ(answer.status, 507);
  EXPECT_THAT(answer.body, HasSubstr(folder_.path()));
  EXPECT_TRUE(asked_.is_empty());
}

TEST_F(BodyFiles, OfAProcessThatWasKilledAreRemoved) {
  const std::string left = folder_ / "memlayers-body.tmp-1-0123abcd";
  write_file(left, "half");
  write_file(folder_ / "other", "not ours");
  Served served(handler(), limits_);
  EXPECT_FALSE(std::filesystem::exists(left));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "other"));
  HttpClient client = served.client();
  client.send(http_post("/", "abc"));
  const auto exchange = asked_.take();
  Served second(handler(), limits_);  // on the same folder
  EXPECT_EQ(read_file(*exchange->request().body_file), "abc");
}

}  // namespace
}  // namespace memlayers::http
