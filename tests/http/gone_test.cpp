// SPDX-License-Identifier: Apache-2.0
// Clients that leave, in whatever way, and handlers that hear of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>

#include "http/served.h"

namespace memlayers::http {
namespace {

using memlayers::testing::http_request;
using memlayers::testing::HttpAnswer;
using memlayers::testing::HttpClient;

using Asked = Post<std::shared_ptr<Exchange>>;

Handler holding(Asked& asked) {
  return handler_of([&asked](std::shared_ptr<Exchange> exchange) { asked.put(exchange); });
}

TEST(Gone, AHandlerHearsOfAClientThatLeavesInSilence) {
  for (const std::string way : {"closes", "resets", "shuts down"}) {
    for (const bool streams : {false, true}) {
      SCOPED_TRACE(way + (streams ? " a stream" : ""));
      Asked asked;
      Post<bool> gone;
      Served served(holding(asked));
      HttpClient client = served.client();
      client.send(http_request("GET", "/"));
      const auto exchange = asked.take();
      exchange->on_gone([&] { gone.put(true); });
      if (streams) {
        exchange->begin(200, {});
        EXPECT_TRUE(exchange->write("a"));
        client.read(10);
      }
      EXPECT_TRUE(client.is_silent(0.02) || streams);
      EXPECT_TRUE(gone.is_empty());
      if (way == "closes") client.close();
      if (way == "resets") client.reset();
      if (way == "shuts down") client.finish_sending();
      EXPECT_TRUE(gone.take());
      EXPECT_FALSE(exchange->write("b"));
      bool is_called = false;
      exchange->on_gone([&] { is_called = true; });
      EXPECT_TRUE(is_called) << "at once where it has left";
    }
  }
}

TEST(Gone, AWholeAnswerStillReachesAClientThatOnlyStoppedSending) {
  Asked asked;
  Post<bool> gone;
  Served served(holding(asked));
  HttpClient client = served.client();
  client.send(http_request("GET", "/a") + http_request("GET", "/b"));
  client.finish_sending();
  for (const std::string path : {"/a", "/b"}) {
    const auto exchange = asked.take();
    exchange->on_gone([&] { gone.put(true); });
    EXPECT_TRUE(gone.take());
    echo(exchange);
    EXPECT_EQ(client.answer().body, "GET " + path + "? ");
  }
  EXPECT_TRUE(client.is_closed());
}

TEST(Gone, AnExchangeThatIsLetGoOfEndsAHalfClosedConnection) {
  Asked asked;
  Post<bool> gone;
  Served served(holding(asked));
  HttpClient client = served.client();
  client.send(http_request("GET", "/a"));
  client.finish_sending();
  auto exchange = asked.take();
  exchange->on_gone([&] { gone.put(true); });
  EXPECT_TRUE(gone.take());
  exchange.reset();
  EXPECT_TRUE(client.is_closed());
}

TEST(Gone, NothingIsHeardAfterTheAnswer) {
  Asked asked;
  Served served(holding(asked));
  HttpClient client = served.client();
  client.send(http_request("GET", "/"));
  auto exchange = asked.take();
  auto held = std::make_shared<int>();
  exchange->on_gone([held] { FAIL() << "it has had its answer"; });
  EXPECT_EQ(held.use_count(), 2);
  echo(exchange);
  EXPECT_EQ(held.use_count(), 1) << "what the call holds is let go of";
  client.answer();
  exchange->on_gone([] { FAIL() << "likewise"; });
  client.close();
}

TEST(Gone, AClientBehindManyRequestsIsNoticedToo) {
  Asked asked;
  Post<bool> gone;
  Served served(holding(asked));
  HttpClient client = served.client();
  std::string all;
  while (all.size() < 90'000) all += http_request("GET", "/");
  ASSERT_TRUE(client.send(all));
  const auto exchange = asked.take();
  exchange->on_gone([&] { gone.put(true); });
  client.close();
  EXPECT_TRUE(gone.take());
}

TEST(Gone, OneThatDoesNotReadIsGoneWhenTooMuchWaits) {
  Asked asked;
  Limits limits;
  // Frames of "9\r\n", nine bytes, "\r\n": the loop is held up meanwhile, so all of it waits.
  limits.unread_bytes = 10 * 14;
  Post<int> written;
  Handler handler = handler_of([&](const std::shared_ptr<Exchange>& exchange) {
    exchange->begin(200, {});
    int pieces = 0;
    while (exchange->write("123456789")) ++pieces;
    written.put(pieces);
  });
  Served served(handler, limits);
  HttpClient client = served.client();
  const HttpAnswer answer = client.ask(http_request("GET", "/"));
  EXPECT_EQ(written.take(), 10);
  EXPECT_FALSE(answer.is_whole);
}

TEST(Gone, OneThatDoesNotReadIsGoneAfterAWhile) {
  Asked asked;
  Post<bool> gone;
  Limits limits;
  limits.write_stall_s = 0.1;
  limits.unread_bytes = 100 << 20;
  Served served(holding(asked), limits);
  HttpClient client = served.client();
  client.send(http_request("GET", "/"));
  const auto exchange = asked.take();
  exchange->on_gone([&] { gone.put(true); });
  exchange->begin(200, {});
  EXPECT_TRUE(exchange->write(std::string(50 << 20, 'x')));  // more than the system holds
  EXPECT_TRUE(gone.take());
  EXPECT_FALSE(exchange->write("more"));
}

TEST(Gone, OneThatReadsSlowlyIsNot) {
  Asked asked;
  Limits limits;
  limits.write_stall_s = 10;
  limits.unread_bytes = 100 << 20;
  Served served(holding(asked), limits);
  HttpClient client = served.client();
  client.send(http_request("GET", "/"));
  const auto exchange = asked.take();
  exchange->begin(200, {});
  exchange->write(std::string(20 << 20, 'x'));
  exchange->end();
  std::size_t bytes = 0;
  for (int i = 0; i < 20; ++i) {
    bytes += client.read(1 << 19).size();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  bytes += client.read((20 << 20) - bytes).size();
  EXPECT_EQ(bytes, std::size_t{20} << 20);
}

TEST(Gone, ACallThatThrowsEndsNothingElse) {
  Asked asked;
  Served served(holding(asked));
  {
    HttpClient client = served.client();
    client.send(http_request("GET", "/"));
    asked.take()->on_gone([] { throw std::runtime_error("oh"); });
  }
  HttpClient other = served.client();
  other.send(http_request("GET", "/"));
  echo(asked.take());
  EXPECT_EQ(other.answer().status, 200);
}

TEST(Gone, AnExchangeOutlivesItsServer) {
  Asked asked;
  std::shared_ptr<Exchange> exchange;
  {
    Served served(holding(asked));
    HttpClient client = served.client();
    client.send(http_request("GET", "/kept"));
    exchange = asked.take();
  }
  EXPECT_EQ(exchange->request().path, "/kept");
  bool is_gone = false;
  exchange->on_gone([&] { is_gone = true; });
  EXPECT_TRUE(is_gone);
  exchange->begin(200, {});
  EXPECT_FALSE(exchange->write("a"));
  exchange->end();
}

}  // namespace
}  // namespace memlayers::http
