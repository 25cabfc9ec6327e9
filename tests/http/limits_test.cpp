// SPDX-License-Identifier: Apache-2.0
// Every limit over a socket, at the limit and one beyond. (What a header may be:
// request_parser_test.)
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "http/served.h"
#include "support/testing.h"

namespace memlayers::http {
namespace {

using memlayers::testing::http_post;
using memlayers::testing::http_request;
using memlayers::testing::HttpAnswer;
using memlayers::testing::HttpClient;
using memlayers::testing::resident_bytes;
using ::testing::HasSubstr;

void pause_ms(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

TEST(Limits, TheDefaultsAreThoseOfTheDocumentation) {
  Served served;
  const auto line_of = [](std::size_t bytes) {
    return http_request("GET", "/" + std::string(bytes - 14, 'a'));
  };
  EXPECT_EQ(served.status_of(line_of(8192)), 200);
  EXPECT_EQ(served.status_of(line_of(8193)), 414);
  const auto header_of = [](std::size_t bytes) {  // "host: localhost\r\n" is 17 of them
    return http_request("GET", "/", "x: " + std::string(bytes - 22, 'a') + "\r\n");
  };
  EXPECT_EQ(served.status_of(header_of(32768)), 200);
  EXPECT_EQ(served.status_of(header_of(32769)), 431);
  const auto fields_of = [](int fields) {
    std::string text;
    for (int i = 1; i < fields; ++i) text += "a: b\r\n";
    return http_request("GET", "/", text);
  };
  EXPECT_EQ(served.status_of(fields_of(100)), 200);
  EXPECT_EQ(served.status_of(fields_of(101)), 431);
}

TEST(Limits, ARefusalReachesAClientThatStillSends) {
  Served served;
  HttpClient client = served.client();
  client.send(http_request("POST", "/", "content-length: 100000000\r\n"));
  const std::string much(1 << 20, 'x');
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(client.send(much)) << "it is read, and dropped";
  const HttpAnswer answer = client.answer();
  EXPECT_EQ(answer.status, 413);
  EXPECT_THAT(answer.body, HasSubstr("at most 1000 bytes, got 100000000"));
  EXPECT_EQ(answer.headers.at("connection"), "close");
}

TEST(Limits, ButNotForLong) {
  Limits limits;
  limits.linger_s = 0.05;
  Served served(handler_of(), limits);
  HttpClient client = served.client();
  client.send(http_request("POST", "/", "content-length: 100000000\r\n"));
  while (client.send("x")) pause_ms(1);
  SUCCEED();
}

TEST(Limits, ABodyIsHeldToItsLength) {
  Served served;
  EXPECT_EQ(served.status_of(http_post("/", std::string(1000, 'a'))), 200);
  EXPECT_EQ(served.status_of(http_post("/", std::string(1001, 'a'))), 413);
  const auto chunked = [](std::size_t bytes) {
    std::string text;
    for (std::size_t i = 0; i < bytes; ++i) text += "1\r\na\r\n";
    return http_request("POST", "/", "transfer-encoding: chunked\r\n", text + "0\r\n\r\n");
  };
  EXPECT_EQ(served.status_of(chunked(1000)), 200);
  EXPECT_EQ(served.status_of(chunked(1001)), 413);
}

TEST(Limits, TheHandlerDecidesByTheHeaderAlone) {
  Handler handler = handler_of();
  handler.admit = [](const Request& request) {
    EXPECT_EQ(request.body, "");
    const std::string* key = request.header("authorization");
    Admission admission{.most_body_bytes = 10};
    if (key == nullptr || *key != "Bearer key") admission.refusal = Response{401, {}, "who?"};
    return admission;
  };
  Served served(handler);
  EXPECT_EQ(served.status_of(http_request("POST", "/", "content-length: 5\r\n")), 401)
      << "before the body is there";
  EXPECT_EQ(served.status_of(http_post("/", "hello", "Authorization: Bearer key\r\n")), 200);
}

TEST(Limits, AHeaderHasToComeInTime) {
  Limits limits;
  limits.header_s = 0.05;
  Served served(handler_of(), limits);
  HttpClient client = served.client();
  client.send("GET / HTTP/1.1\r\nhost:");
  const HttpAnswer answer = client.answer();
  EXPECT_EQ(answer.status, 408);
  EXPECT_THAT(answer.body, HasSubstr("within 0.05 s"));
  HttpClient silent = served.client();
  EXPECT_TRUE(silent.is_closed()) << "nothing was asked, and nothing is answered";
  HttpClient trickle = served.client();  // every byte in time, the whole not
  const std::string request = http_request("GET", "/", "x: " + std::string(10'000, 'a') + "\r\n");
  for (std::size_t i = 0; i < request.size() && trickle.is_silent(0.001); ++i) {
    trickle.send(request.substr(i, 1));
  }
  EXPECT_EQ(trickle.answer().status, 408);
}

TEST(Limits, AConnectionWaitsForItsNextRequestOnlySoLong) {
  Limits limits;
  limits.keep_alive_s = 0.05;
  Served served(handler_of(), limits);
  HttpClient client = served.client();
  EXPECT_EQ(client.ask(http_request("GET", "/")).status, 200);
  EXPECT_TRUE(client.is_closed());
}

TEST(Limits, ABodyHasToComeFastEnough) {
  Limits limits;
  limits.body_grace_s = 0.1;
  limits.body_rate = 500;
  Served served(handler_of(), limits);
  HttpClient stalled = served.client();
  stalled.send(http_request("POST", "/", "content-length: 900\r\n", std::string(899, 'a')));
  EXPECT_EQ(stalled.answer().status, 408) << "what came fast is no credit for ever";
  HttpClient slow = served.client();
  slow.send(http_request("POST", "/", "content-length: 900\r\n"));
  for (int i = 0; i < 900 && slow.is_silent(0.01); ++i) slow.send("a");  // 100 a second
  const HttpAnswer answer = slow.answer();
  EXPECT_EQ(answer.status, 408);
  EXPECT_THAT(answer.body, HasSubstr("at least 500 bytes a second"));
}

TEST(Limits, ABodyThatIsFastEnoughMayTakeLongerThanTheGrace) {
  Limits limits;
  limits.body_grace_s = 1;
  limits.body_rate = 100;
  Served served(handler_of(), limits);
  HttpClient client = served.client();
  client.send(http_request("POST", "/", "content-length: 1000\r\n"));
  for (int i = 0; i < 20; ++i) {
    client.send(std::string(50, 'a'));
    pause_ms(60);
  }
  EXPECT_EQ(client.answer().status, 200);
}

TEST(Limits, AllBodiesTogetherAreHeldToTheirBytes) {
  Limits limits;
  limits.bodies_bytes = 1000;
  Served served(handler_of(), limits);
  const auto begin = [&](std::size_t bytes) {
    HttpClient client = served.client();
    client.send(http_request("POST", "/", "content-length: 1000\r\n", std::string(bytes, 'a')));
    return client;
  };
  HttpClient one = begin(600);
  EXPECT_TRUE(one.is_silent(0.05));
  HttpClient two = begin(401);
  EXPECT_EQ(two.answer().status, 503);
  HttpClient three = begin(400);
  EXPECT_TRUE(three.is_silent(0.05));
  three.close();
  one.send(std::string(400, 'a'));
  EXPECT_EQ(one.answer().status, 200);
  EXPECT_EQ(served.status_of(http_post("/", std::string(1000, 'a'))), 200) << "they are let go of";
}

TEST(Limits, ARequestIsOverAfterItsTime) {
  Post<std::shared_ptr<Exchange>> asked;
  Post<bool> gone;
  Limits limits;
  limits.request_s = 0.1;
  Served served(handler_of([&](std::shared_ptr<Exchange> exchange) {
                  exchange->on_gone([&] { gone.put(true); });
                  if (exchange->request().path == "/stream") {
                    exchange->begin(200, {});
                    exchange->write("a");
                  }
                  asked.put(exchange);
                }),
                limits);
  HttpClient client = served.client();
  const HttpAnswer answer = client.ask(http_request("GET", "/"));
  EXPECT_EQ(answer.status, 504);
  EXPECT_THAT(answer.body, HasSubstr("within 0.1 s"));
  EXPECT_TRUE(gone.take()) << "the handler need not go on";
  asked.take()->answer({200, {}, "late"});
  EXPECT_TRUE(client.is_closed());
  const HttpAnswer stream = served.client().ask(http_request("GET", "/stream"));
  EXPECT_EQ(stream.status, 200);
  EXPECT_FALSE(stream.is_whole);
  EXPECT_TRUE(gone.take());
  HttpClient slow = served.client();
  EXPECT_EQ(slow.ask(http_request("POST", "/", "content-length: 9\r\n")).status, 408);
}

TEST(Limits, ConnectionsAreCounted) {
  Limits limits;
  limits.connections = 3;
  Served served(handler_of(), limits);
  std::vector<HttpClient> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(served.client());
    EXPECT_EQ(clients.back().ask(http_request("GET", "/")).status, 200);
  }
  EXPECT_EQ(served.server().connections(), 3U);
  HttpClient fourth = served.client();
  const HttpAnswer answer = fourth.ask(http_request("GET", "/"));
  EXPECT_EQ(answer.status, 503);
  EXPECT_THAT(answer.body, HasSubstr("all the connections it takes"));
  EXPECT_TRUE(fourth.is_closed());
  clients.pop_back();
  while (served.server().connections() == 3) pause_ms(1);
  EXPECT_EQ(served.status_of(http_request("GET", "/")), 200);
}

TEST(Limits, ConnectionsOfOneAddressAreCounted) {
  Limits limits;
  limits.connections_per_address = 2;
  Served served(handler_of(), limits, "0.0.0.0");
  HttpClient one = served.client(), two = served.client();
  EXPECT_EQ(one.ask(http_request("GET", "/")).status, 200);
  EXPECT_EQ(two.ask(http_request("GET", "/")).status, 200);
  EXPECT_EQ(served.status_of(http_request("GET", "/")), 429);
  HttpClient other(served.server().port(), "127.0.0.1", "127.0.0.2");
  EXPECT_EQ(other.ask(http_request("GET", "/")).status, 200);
}

TEST(Limits, ManyRefusedAtOnceCostNothing) {
  Limits limits;
  limits.connections = 1;
  Served served(handler_of(), limits);
  HttpClient first = served.client();
  EXPECT_EQ(first.ask(http_request("GET", "/")).status, 200);
  std::vector<HttpClient> refused;
  for (int i = 0; i < 300; ++i) refused.push_back(served.client());
  int told = 0;
  for (HttpClient& client : refused) told += client.answer().status == 503 ? 1 : 0;
  EXPECT_GE(told, 100);
  EXPECT_EQ(first.ask(http_request("GET", "/")).status, 200);
}

TEST(Limits, SlowClientsCostLittle) {
  Limits limits;
  limits.connections = limits.connections_per_address = 400;
  Post<std::shared_ptr<Exchange>> asked;
  Served served(handler_of([&](std::shared_ptr<Exchange> exchange) {
                  if (exchange->request().path == "/fast") return echo(exchange);
                  exchange->begin(200, {});
                  exchange->write(std::string(1000, 'a'));
                  asked.put(exchange);
                }),
                limits);
  const std::int64_t before = resident_bytes();
  std::vector<HttpClient> clients;
  for (int i = 0; i < 300; ++i) {
    clients.push_back(served.client());
    if (i % 3 == 0) clients.back().send("GET / HTTP/1.1\r\nhost: h");
    if (i % 3 == 1) clients.back().send(http_request("POST", "/", "content-length: 900\r\n", "a"));
    if (i % 3 == 2) clients.back().send(http_request("GET", "/"));
  }
  for (int i = 0; i < 100; ++i) asked.take();
  EXPECT_EQ(served.status_of(http_request("GET", "/fast")), 200);
  EXPECT_LT((resident_bytes() - before) / 300, 100'000);
}

}  // namespace
}  // namespace memlayers::http
