// SPDX-License-Identifier: Apache-2.0
// Requests and answers over sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>

#include "http/served.h"

namespace memlayers::http {
namespace {

using memlayers::testing::http_post;
using memlayers::testing::http_request;
using memlayers::testing::HttpAnswer;
using memlayers::testing::HttpClient;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;

TEST(Exchange, AnswersOneRequestAfterTheOtherOnAConnection) {
  Served served;
  HttpClient client = served.client();
  for (const std::string name : {"a", "b", "c"}) {
    const HttpAnswer answer = client.ask(http_post("/" + name + "?q", "body " + name));
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "POST /" + name + "?q body " + name);
    EXPECT_EQ(answer.headers.at("content-type"), "text/plain");
    EXPECT_FALSE(answer.headers.contains("connection"));
    EXPECT_THAT(answer.headers.at("date"),
                MatchesRegex("[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} 20[0-9]{2} "
                             "[0-9]{2}:[0-9]{2}:[0-9]{2} GMT"));
  }
}

TEST(Exchange, AnswersPipelinedRequestsInTheirOrder) {
  // Each is answered by a thread of its own, the first last.
  std::vector<std::thread> threads;
  Served served(handler_of([&](std::shared_ptr<Exchange> exchange) {
    threads.emplace_back([exchange] { echo(exchange); });
  }));
  std::string all, expected;
  for (int i = 0; i < 50; ++i) {
    all += http_post("/" + std::to_string(i), std::string(static_cast<std::size_t>(i), 'x'));
  }
  HttpClient client = served.client();
  ASSERT_TRUE(client.send(all));
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(client.answer().body,
              "POST /" + std::to_string(i) + "? " + std::string(static_cast<std::size_t>(i), 'x'));
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Exchange, TakesMorePipelinedRequestsThanItHoldsAtOnce) {
  Served served;
  constexpr int kRequests = 5000;  // about 200 KB
  HttpClient client = served.client();
  std::string all;
  for (int i = 0; i < kRequests; ++i) all += http_request("GET", "/" + std::to_string(i));
  std::thread sender([&] { EXPECT_TRUE(client.send(all)); });
  for (int i = 0; i < kRequests; ++i) {
    ASSERT_EQ(client.answer().body, "GET /" + std::to_string(i) + "? ");
  }
  sender.join();
}

TEST(Exchange, GoesOnAfterRefusalsOfRequestsWithoutABody) {
  Handler handler = handler_of();
  handler.admit = [](const Request& request) {
    Admission admission{.most_body_bytes = 100};
    if (request.path == "/no") admission.refusal = Response{401, {{"a", "b"}}, "no"};
    return admission;
  };
  Served served(handler);
  HttpClient client = served.client();
  std::string all;
  for (int i = 0; i < 1000; ++i) all += http_request("GET", "/no");
  ASSERT_TRUE(client.send(all + http_request("GET", "/yes")));
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(client.answer().status, 401);
  EXPECT_EQ(client.answer().status, 200);
  // Its body is not read: no more can come of this connection.
  const HttpAnswer answer = client.ask(http_post("/no", "x"));
  EXPECT_EQ(answer.status, 401);
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.is_closed());
}

TEST(Exchange, StreamsPiecesFromAnotherThread) {
  Post<std::shared_ptr<Exchange>> asked;
  Served served(handler_of([&](std::shared_ptr<Exchange> exchange) { asked.put(exchange); }));
  HttpClient client = served.client();
  client.send(http_request("GET", "/"));
  {
    const auto exchange = asked.take();
    exchange->begin(200, {{"content-type", "text/event-stream"}});
    EXPECT_TRUE(exchange->write("one"));
    EXPECT_FALSE(client.is_silent(20)) << "what there is is sent before the end";
    EXPECT_TRUE(exchange->write(""));  // no last chunk
    EXPECT_TRUE(exchange->write(std::string(100'000, 'x')));
    exchange->end();
    exchange->end();
    EXPECT_FALSE(exchange->write("late"));
  }
  const HttpAnswer answer = client.answer();
  EXPECT_EQ(answer.body, "one" + std::string(100'000, 'x'));
  EXPECT_TRUE(answer.is_whole);
  client.send(http_request("GET", "/"));  // the connection can be used again
  asked.take()->answer({201, {}, "two"});
  EXPECT_EQ(client.answer().body, "two");
}

TEST(Exchange, PutsChunksIntoTheAnswer) {
  Served served(handler_of([](const std::shared_ptr<Exchange>& exchange) {
    exchange->begin(200, {});
    for (const std::string piece : {"a", "", "bc", "0\r\n\r\n"}) exchange->write(piece);
    exchange->end();
  }));
  HttpClient client = served.client();
  for (int i = 0; i < 2; ++i) {
    const HttpAnswer answer = client.ask(http_request("GET", "/"));
    EXPECT_EQ(answer.headers.at("transfer-encoding"), "chunked");
    EXPECT_FALSE(answer.headers.contains("content-length"));
    EXPECT_EQ(answer.body, "abc0\r\n\r\n");
    EXPECT_TRUE(answer.is_whole);
  }
}

TEST(Exchange, StreamsToHttp10UntilTheConnectionEnds) {
  Served served(handler_of([](const std::shared_ptr<Exchange>& exchange) {
    exchange->begin(200, {});
    exchange->write("a");
    exchange->write("bc");
    exchange->end();
  }));
  HttpClient client = served.client();
  client.send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
  const std::string answer = client.read_all();
  EXPECT_THAT(answer, HasSubstr("connection: close\r\n"));
  EXPECT_TRUE(answer.ends_with("\r\n\r\nabc")) << answer;
}

TEST(Exchange, ClosesAfterTheAnswerWhereTheClientWants) {
  Served served;
  HttpClient client = served.client();
  const HttpAnswer answer = client.ask(http_request("GET", "/", "connection: x, Close\r\n"));
  EXPECT_EQ(answer.headers.at("connection"), "close");
  EXPECT_TRUE(client.is_closed());
  HttpClient old = served.client();
  EXPECT_EQ(old.ask("GET / HTTP/1.0\r\n\r\n").body, "GET /? ");
  EXPECT_TRUE(old.is_closed());
}

TEST(Exchange, AnswersHeadAsGetWithoutTheBody) {
  Served served(handler_of([](const std::shared_ptr<Exchange>& exchange) {
    if (exchange->request().path == "/whole") return echo(exchange);
    exchange->begin(200, {});
    EXPECT_TRUE(exchange->write("abc"));
    exchange->end();
  }));
  HttpClient client = served.client();
  client.send(http_request("HEAD", "/whole"));
  EXPECT_EQ(client.answer(/*has_body=*/false).headers.at("content-length"), "13");
  client.send(http_request("HEAD", "/stream"));
  EXPECT_EQ(client.answer(/*has_body=*/false).headers.at("transfer-encoding"), "chunked");
  EXPECT_EQ(client.ask(http_request("GET", "/whole")).body, "GET /whole? ");
}

TEST(Exchange, SendsNoBodyWithAStatusThatHasNone) {
  Served served(handler_of([](const std::shared_ptr<Exchange>& exchange) {
    exchange->answer({204, {}, "not to be seen"});
  }));
  HttpClient client = served.client();
  for (int i = 0; i < 2; ++i) {
    const HttpAnswer answer = client.ask(http_request("GET", "/"));
    EXPECT_EQ(answer.status, 204);
    EXPECT_FALSE(answer.headers.contains("content-length"));
  }
}

TEST(Exchange, AStatusThatIsNoneBecomes500) {
  Served served(handler_of([](const std::shared_ptr<Exchange>& exchange) {
    exchange->answer({exchange->request().path == "/low" ? 101 : 600, {}, "body"});
  }));
  HttpClient client = served.client();
  for (const std::string path : {"/low", "/high"}) {
    const HttpAnswer answer = client.ask(http_request("GET", path));
    EXPECT_EQ(answer.status, 500);
    EXPECT_EQ(answer.body, "body");
  }
}

TEST(Exchange, SaysContinueToAClientThatWaitsForIt) {
  Served served;
  HttpClient client = served.client();
  client.send(http_request("POST", "/", "content-length: 5\r\nexpect: 100-Continue\r\n"));
  EXPECT_EQ(client.read(25), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_EQ(client.ask("hello").body, "POST /? hello");
  // Nor is it said to one whose body is too long, or who did not wait.
  client.send(http_request("POST", "/", "content-length: 5\r\nexpect: 100-continue\r\n", "hello"));
  EXPECT_EQ(client.answer().status, 200);
  client.send(http_request("POST", "/", "content-length: 1001\r\nexpect: 100-continue\r\n"));
  EXPECT_EQ(client.answer().status, 413);
}

TEST(Exchange, KeepsAGoodIdAndMakesOneOtherwise) {
  Served served(handler_of([](const std::shared_ptr<Exchange>& exchange) {
    exchange->answer({200, {{"X-Request-Id", "not this"}}, exchange->request().id});
  }));
  const auto id_of = [&](const std::string& given) {
    const HttpAnswer answer =
        served.client().ask(http_request("GET", "/", "x-request-id: " + given + "\r\n"));
    EXPECT_EQ(answer.body, answer.headers.at("x-request-id"));
    return answer.body;
  };
  const std::string longest(128, 'a');
  EXPECT_EQ(id_of("aZ09._-"), "aZ09._-");
  EXPECT_EQ(id_of(longest), longest);
  for (const std::string& bad : {longest + "a", std::string("a b"), std::string("a\xc3\xa4"),
                                 std::string("\"a\""), std::string()}) {
    EXPECT_THAT(id_of(bad), MatchesRegex("[0-9a-f]{32}"));
  }
  EXPECT_NE(id_of(""), id_of(""));
  EXPECT_TRUE(served.client().ask("BAD\r\n\r\n").headers.contains("x-request-id"));
}

TEST(Exchange, NoTextOfAHandlerBecomesAHeaderOfItsOwn) {
  Served served(handler_of([](const std::shared_ptr<Exchange>& exchange) {
    exchange->answer({200,
                      {{"a", "b\r\nset-cookie: c"},
                       {"Content-Length", "0"},
                       {"Transfer-Encoding", "chunked"},
                       {"d\r\ne", "f"}},
                      "body"});
  }));
  const HttpAnswer answer = served.client().ask(http_request("GET", "/"));
  EXPECT_EQ(answer.headers.at("a"), "b  set-cookie: c");
  EXPECT_FALSE(answer.headers.contains("transfer-encoding"));
  EXPECT_EQ(answer.body, "body");
}

TEST(Exchange, FailuresOfAHandlerEndTheirRequestOnly) {
  Handler handler = handler_of([](const std::shared_ptr<Exchange>& exchange) {
    const std::string& path = exchange->request().path;
    if (path == "/throws") throw std::runtime_error("secret");
    if (path == "/number") throw std::bad_alloc();
    if (path == "/forgets") return;
    if (path == "/stops") {
      exchange->begin(200, {});
      exchange->write("part");
      throw std::runtime_error("secret");
    }
    echo(exchange);
  });
  handler.admit = [](const Request& request) {
    if (request.path == "/admit") throw std::runtime_error("secret");
    return Admission{.most_body_bytes = 1000};
  };
  Served served(handler);
  HttpClient client = served.client();
  for (const std::string path : {"/throws", "/number", "/forgets"}) {
    const HttpAnswer answer = client.ask(http_request("GET", path));
    EXPECT_EQ(answer.status, 500) << path;
    EXPECT_THAT(answer.body, HasSubstr("500: the server failed"));
    EXPECT_THAT(answer.body, Not(HasSubstr("secret")));
  }
  EXPECT_EQ(client.ask(http_request("GET", "/fine")).status, 200);
  EXPECT_EQ(served.status_of(http_request("GET", "/admit")), 500);
  const HttpAnswer part = client.ask(http_request("GET", "/stops"));
  EXPECT_EQ(part.body, "part");
  EXPECT_FALSE(part.is_whole) << "a part is not to be taken for the whole";
  HttpClient old = served.client();
  old.send("GET /stops HTTP/1.0\r\n\r\n");
  old.read_all();  // cut by a reset
  EXPECT_EQ(served.status_of(http_request("GET", "/fine")), 200);
}

TEST(Exchange, ErrorsAreInPlainTextWhereTheHandlerHasNoWordsForThem) {
  for (const bool throws : {false, true}) {
    Handler handler = handler_of();
    handler.error = nullptr;
    if (throws) {
      handler.error = [](int, const std::string&) -> std::pair<std::string, std::string> {
        throw std::runtime_error("no words");
      };
    }
    Served served(handler);
    const HttpAnswer answer = served.client().ask("GET /\r\n");
    EXPECT_EQ(answer.status, 400);
    EXPECT_EQ(answer.headers.at("content-type"), "text/plain; charset=utf-8");
    EXPECT_THAT(answer.body, HasSubstr("METHOD /path HTTP/1.1"));
  }
}

TEST(Exchange, LogsEachAnswer) {
  Post<std::string> lines;
  Handler handler = handler_of();
  handler.log = [&](const Request& request, int status, std::uint64_t bytes, double seconds) {
    EXPECT_GE(seconds, 0);
    EXPECT_EQ(request.peer, "127.0.0.1");
    lines.put(request.method + " " + request.path + " " + std::to_string(status) + " " +
              std::to_string(bytes));
    throw std::runtime_error("a log that is full");
  };
  Served served(handler);
  HttpClient client = served.client();
  client.ask(http_request("GET", "/a"));
  EXPECT_EQ(lines.take(), "GET /a 200 8");
  client.send(http_request("HEAD", "/a"));
  EXPECT_EQ(lines.take(), "HEAD /a 200 0");
  client.answer(/*has_body=*/false);
  client.ask(http_request("POST", "/b", "content-length: 2000\r\n"));
  EXPECT_THAT(lines.take(), MatchesRegex("POST /b 413 [1-9][0-9]*"));
  served.status_of("nonsense\r\n");
  EXPECT_THAT(lines.take(), MatchesRegex("  400 [1-9][0-9]*"));
}

}  // namespace
}  // namespace memlayers::http
