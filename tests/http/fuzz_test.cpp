// SPDX-License-Identifier: Apache-2.0
// Thousands of requests that are not quite right, over sockets. The server answers each, or closes,
// and goes on; never does it fail.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "http/served.h"

namespace memlayers::http {
namespace {

using memlayers::testing::http_post;
using memlayers::testing::http_request;
using memlayers::testing::HttpClient;

const std::vector<std::string>& seeds() {
  static const std::vector<std::string> all = {
      http_request("GET", "/a?b=c", "accept: */*\r\nx-request-id: abc\r\n"),
      http_post("/v1/chat", "{\"a\": 1}", "content-type: application/json\r\n"),
      http_request("POST", "/", "transfer-encoding: chunked\r\n",
                   "5\r\nhello\r\n1;a=\"b\"\r\nx\r\n0\r\nt: u\r\n\r\n"),
      http_request("POST", "/", "content-length: 3\r\nexpect: 100-continue\r\n", "abc"),
      http_request("HEAD", "//a//b", "connection: close\r\n"),
      http_request("OPTIONS", "*", "content-encoding: identity\r\n"),
      "GET http://here/a HTTP/1.0\r\n\r\n",
      http_request("GET", "/1") + http_post("/2", "x") + http_request("GET", "/3"),
  };
  return all;
}

const std::vector<std::string>& pieces() {
  static const std::vector<std::string> all = {"\r\n",
                                               "\n",
                                               "\r",
                                               std::string(1, '\0'),
                                               ": ",
                                               " ",
                                               "\t",
                                               "/",
                                               "HTTP/1.1",
                                               "HTTP/1.0",
                                               "HTTP/9.9",
                                               "content-length: 5\r\n",
                                               "content-length: 18446744073709551615\r\n",
                                               "transfer-encoding: chunked\r\n",
                                               "0\r\n\r\n",
                                               "ffffffffffffffff\r\n",
                                               "7fffffff\r\n",
                                               ";",
                                               "\"",
                                               ",",
                                               "\x80\xff",
                                               "host: here\r\n",
                                               "\r\n\r\n",
                                               std::string(300, 'a'),
                                               "100-continue",
                                               "PRI * HTTP/2.0\r\n\r\n",
                                               "connection: keep-alive, close\r\n"};
  return all;
}

class Mutator {
 public:
  explicit Mutator(unsigned seed) : random_(seed) {}

  std::size_t below(std::size_t n) { return n == 0 ? 0 : random_() % n; }

  std::string request() {
    std::string text = seeds()[below(seeds().size())];
    for (std::size_t i = below(5); i > 0; --i) change(text);
    if (below(8) == 0) text += request();
    return text;
  }

 private:
  void change(std::string& text) {
    const std::size_t at = below(text.size());
    switch (below(6)) {
      case 0:
        if (!text.empty()) text[at] = static_cast<char>(random_());
        break;
      case 1:
        text.erase(at, 1 + below(4));
        break;
      case 2:
        text.insert(at, pieces()[below(pieces().size())]);
        break;
      case 3:
        text.insert(at, text.substr(below(text.size()), below(40)));
        break;
      case 4:
        text.resize(at);
        break;
      default:
        if (!text.empty()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
    }
  }

  std::mt19937 random_;
};

TEST(Fuzz, EveryRequestIsAnsweredOrRefused) {
  constexpr int kRequests = 8000;
  Limits limits;
  limits.header_s = limits.keep_alive_s = limits.body_grace_s = 0.03;
  limits.linger_s = 0.03;
  limits.connections_per_address = limits.connections;
  limits.request_line_bytes = limits.header_bytes = 1000;
  Handler handler = handler_of([](const std::shared_ptr<Exchange>& exchange) {
    if (exchange->request().path.size() % 2 == 0) return echo(exchange);
    exchange->begin(200, {});
    exchange->write(exchange->request().path);
    exchange->end();
  });
  handler.admit = [](const Request& request) {
    return Admission{.most_body_bytes = 1000, .body_to_file = request.path.size() % 5 == 0};
  };
  Served served(handler, limits);
  Mutator mutator(20261130);
  int answered = 0, refused = 0;
  for (int i = 0; i < kRequests; ++i) {
    const std::string request = mutator.request();
    HttpClient client = served.client();
    std::size_t at = 0;
    for (std::size_t cuts = mutator.below(3); cuts > 0 && at < request.size(); --cuts) {
      const std::size_t size = mutator.below(request.size() - at);
      if (!client.send(std::string_view(request).substr(at, size))) break;
      at += size;
    }
    client.send(std::string_view(request).substr(at));
    switch (mutator.below(4)) {
      case 0:
        client.reset();
        continue;
      case 1:
        client.close();
        continue;
      default:
        client.finish_sending();
    }
    const std::string answers = client.read_all();
    if (answers.empty()) continue;
    ASSERT_TRUE(answers.starts_with("HTTP/1.1 ")) << answers;
    const int status = std::stoi(answers.substr(9, 3));
    ASSERT_TRUE(status < 500 || status == 501 || status == 505) << status << " to " << request;
    ++(status < 400 ? answered : refused);
  }
  EXPECT_GT(answered, kRequests / 10);
  EXPECT_GT(refused, kRequests / 10);
  EXPECT_EQ(served.status_of(http_request("GET", "/x")), 200);
}

}  // namespace
}  // namespace memlayers::http
