// SPDX-License-Identifier: Apache-2.0
#include "http/request_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/http_client.h"

namespace memlayers::http {
namespace {

using memlayers::testing::http_request;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

struct Parsed {
  Request request;
  int status = 0;  // of a BadRequest; 0: a good one
  std::string sentence;
  bool is_done = false;
  std::size_t taken = 0;
};

// Given in pieces of so many bytes; what is not taken comes again with the next.
Parsed parsed(const std::string& bytes, std::size_t step, const Limits& limits = {},
              std::uint64_t most = 1000) {
  RequestParser parser(limits);
  Parsed result;
  std::string input, body;
  try {
    for (std::size_t at = 0; at < bytes.size() && !parser.is_done(); at += step) {
      input += bytes.substr(at, step);
      for (bool is_more = true; is_more && !parser.is_done();) {
        const bool had_header = parser.has_header();
        const std::size_t taken =
            had_header ? parser.put_body(input, most, body) : parser.put_header(input);
        input.erase(0, taken);
        result.taken += taken;
        is_more = taken > 0 || parser.has_header() != had_header;
      }
    }
    result.is_done = parser.is_done();
  } catch (const BadRequest& bad) {
    result.status = bad.status();
    result.sentence = bad.what();
  }
  result.request = parser.request();
  result.request.body = body;
  return result;
}

// However the bytes are cut.
Parsed parsed(const std::string& bytes, const Limits& limits = {}) {
  const Parsed whole = parsed(bytes, bytes.size(), limits);
  for (const std::size_t step : {1, 2, 3, 7}) {
    const Parsed cut = parsed(bytes, step, limits);
    EXPECT_EQ(cut.status, whole.status) << "step " << step << ": " << cut.sentence;
    EXPECT_EQ(cut.request.body, whole.request.body) << "step " << step;
    EXPECT_EQ(cut.is_done, whole.is_done) << "step " << step;
  }
  return whole;
}

TEST(RequestParser, TakesARequestApart) {
  const Parsed result = parsed(
      "POST //v1///chat?a=1&b=?2 HTTP/1.1\r\nHost: here\r\nX-Two:  two words \r\nEmpty:\r\n"
      "Content-Length: 5\r\n\r\nhello");
  EXPECT_EQ(result.status, 0) << result.sentence;
  EXPECT_TRUE(result.is_done);
  EXPECT_EQ(result.request.method, "POST");
  EXPECT_EQ(result.request.path, "/v1/chat");
  EXPECT_EQ(result.request.query, "a=1&b=?2");
  EXPECT_THAT(result.request.headers, ElementsAre(Pair("host", "here"), Pair("x-two", "two words"),
                                                  Pair("empty", ""), Pair("content-length", "5")));
  EXPECT_EQ(result.request.body, "hello");
}

TEST(RequestParser, LeavesTheNextRequestAlone) {
  const std::string one = http_request("GET", "/");
  EXPECT_EQ(parsed("\r\n\r\n" + one + one).taken, one.size() + 4);
  const std::string chunked =
      http_request("POST", "/", "transfer-encoding: Chunked\r\n", "0\r\n\r\n");
  EXPECT_EQ(parsed(chunked + one).taken, chunked.size());
}

TEST(RequestParser, PutsChunksTogether) {
  const Parsed result = parsed(http_request(
      "POST", "/", "transfer-encoding: chunked\r\n",
      "3\r\nabc\r\n00a;name=\"a; value\"\r\n0123456789\r\n0\r\ntrailer: x\r\nhost: y\r\n\r\n"));
  EXPECT_EQ(result.status, 0) << result.sentence;
  EXPECT_TRUE(result.is_done);
  EXPECT_EQ(result.request.body, "abc0123456789");
  EXPECT_EQ(result.request.headers.size(), 2U) << "a trailer is no header";
}

TEST(RequestParser, CutsAProxysAddressToThePath) {
  EXPECT_EQ(parsed(http_request("GET", "http://here:80/a/b?c")).request.path, "/a/b");
  const Parsed bare = parsed(http_request("GET", "HTTPS://here?c"));
  EXPECT_EQ(bare.request.path, "/");
  EXPECT_EQ(bare.request.query, "c");
  EXPECT_EQ(parsed(http_request("OPTIONS", "*")).request.path, "*");
}

TEST(RequestParser, TakesHttp10WithoutAHost) {
  const Parsed result = parsed("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(result.status, 0) << result.sentence;
  EXPECT_TRUE(result.is_done);
}

// Two parsers that disagree about one of these would see different requests in the same bytes.
TEST(RequestParser, RefusesEveryOtherForm) {
  const std::vector<std::pair<int, std::string>> forms = {
      // More than one way to find the end of the body.
      {400, http_request("POST", "/", "content-length: 5\r\ntransfer-encoding: chunked\r\n")},
      {400, http_request("POST", "/", "transfer-encoding: chunked\r\ncontent-length: 5\r\n")},
      {400, http_request("POST", "/", "content-length: 5\r\ncontent-length: 5\r\n")},
      {400, http_request("POST", "/", "content-length: 5, 5\r\n")},
      {400, http_request("POST", "/", "content-length: +5\r\n")},
      {400, http_request("POST", "/", "content-length: -5\r\n")},
      {400, http_request("POST", "/", "content-length: 0x5\r\n")},
      {400, http_request("POST", "/", "content-length:\r\n")},
      {400, http_request("POST", "/", "content-length: 99999999999999999999\r\n")},
      {400,
       http_request("POST", "/", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n")},
      {501, http_request("POST", "/", "transfer-encoding: gzip, chunked\r\n")},
      {501, http_request("POST", "/", "transfer-encoding: identity\r\n")},
      {501, http_request("POST", "/", "transfer-encoding: xchunked\r\n")},
      {400, "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n"},
      // Lines.
      {400, "GET / HTTP/1.1\nhost: here\n\n"},
      {400, "GET / HTTP/1.1\r\nhost: here\n\r\n"},
      {400, "GET / HTTP/1.1\r\nhost: here\r\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nhost: here\r\nx: a\rb\r\n\r\n"},
      {400, http_request("GET", "/", "x: a\r\n b\r\n")},
      {400, http_request("GET", "/", "x: a\r\n\tb\r\n")},
      {400, "GET / HTTP/1.1\r\n host: here\r\n\r\n"},
      {400, http_request("GET", "/", std::string("x: a\0b\r\n", 8))},
      {400, http_request("GET", "/", "x: a\x7f\r\n")},
      // Fields.
      {400, http_request("GET", "/", "x : a\r\n")},
      {400, http_request("GET", "/", ": a\r\n")},
      {400, http_request("GET", "/", "x\r\n")},
      {400, http_request("GET", "/", "x(y): a\r\n")},
      {400, http_request("GET", "/", "h\xc3\xb6st: a\r\n")},
      {400, "GET / HTTP/1.1\r\n\r\n"},
      {400, http_request("GET", "/", "host: there\r\n")},
      // First lines.
      {400, "GET  / HTTP/1.1\r\nhost: here\r\n\r\n"},
      {400, "GET / HTTP/1.1 \r\nhost: here\r\n\r\n"},
      {400, "GET /a b HTTP/1.1\r\nhost: here\r\n\r\n"},
      {400, "GET\t/ HTTP/1.1\r\nhost: here\r\n\r\n"},
      {400, " GET / HTTP/1.1\r\nhost: here\r\n\r\n"},
      {400, "G<T / HTTP/1.1\r\nhost: here\r\n\r\n"},
      {400, "GET here HTTP/1.1\r\nhost: here\r\n\r\n"},
      {400, "GET http:///a HTTP/1.1\r\nhost: here\r\n\r\n"},
      {400, "CONNECT here:80 HTTP/1.1\r\nhost: here\r\n\r\n"},
      {400, "GET * HTTP/1.1\r\nhost: here\r\n\r\n"},
      // Versions.
      {400, "GET /\r\n"},
      {400, "GET\r\n"},
      {400, "GET / http/1.1\r\nhost: here\r\n\r\n"},
      {400, "GET / HTTP/1\r\nhost: here\r\n\r\n"},
      {505, "GET / HTTP/1.2\r\nhost: here\r\n\r\n"},
      {505, "GET / HTTP/0.9\r\n\r\n"},
      {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
      {400, "\x16\x03\x01\x02\x01\x01"},
      // What else a client may want.
      {417, http_request("POST", "/", "expect: a miracle\r\n")},
      {415, http_request("POST", "/", "content-encoding: gzip\r\ncontent-length: 5\r\n")},
      {415, http_request("POST", "/", "content-encoding: identity, br\r\ncontent-length: 5\r\n")},
  };
  for (const auto& [status, form] : forms) EXPECT_EQ(parsed(form).status, status) << form;
  EXPECT_EQ(parsed(http_request("GET", "/", "content-encoding: Identity\r\n")).status, 0);
}

TEST(RequestParser, RefusesChunksOfEveryOtherForm) {
  for (const std::string body :
       {"5\nhello\r\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "\r\n5\r\nhello",
        "x\r\nhello\r\n", "0x5\r\nhello\r\n\r\n", " 5\r\nhello\r\n", "-5\r\nhello\r\n",
        ";\r\nhello", "5 5\r\nhello\r\n", "10000000000000000\r\nhello",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n", "5;a=\x01\r\nhello\r\n", "0\r\nx\r\n\r\n",
        "0\r\nx: \x01\r\n\r\n"}) {
    const Parsed result = parsed(http_request("POST", "/", "transfer-encoding: chunked\r\n", body));
    EXPECT_EQ(result.status, 400) << body;
  }
}

TEST(RequestParser, SaysWhatIsWrongAndWhatWasWanted) {
  EXPECT_THAT(parsed("\x16\x03\x01").sentence, HasSubstr("expected HTTP, got TLS"));
  EXPECT_THAT(parsed("PRI * HTTP/2.0\r\n").sentence, HasSubstr("HTTP/1.1"));
  EXPECT_THAT(parsed("GET /\r\n").sentence, HasSubstr("METHOD /path HTTP/1.1"));
  EXPECT_THAT(parsed(http_request("POST", "/", "transfer-encoding: a\x80z\r\n")).sentence,
              HasSubstr("\"a\\x80z\""));
}

TEST(RequestParser, HoldsTheFirstLineToItsLimit) {
  const Limits limits{.request_line_bytes = 40};
  const auto line_of = [](std::size_t bytes) {
    return "GET /" + std::string(bytes - 14, 'a') + " HTTP/1.1\r\nhost: here\r\n\r\n";
  };
  EXPECT_EQ(parsed(line_of(40), limits).status, 0);
  EXPECT_EQ(parsed(line_of(41), limits).status, 414);
  EXPECT_EQ(parsed(std::string(41, 'A'), limits).status, 414) << "before its end is there";
}

TEST(RequestParser, HoldsTheHeaderToItsLimits) {
  const std::string first = "GET / HTTP/1.1\r\n", host = "host: here\r\n";
  const Limits limits{.header_bytes = 60, .headers = 3};
  const auto fields_of = [&](std::size_t bytes) {
    return first + host + "x: " + std::string(bytes - host.size() - 5, 'a') + "\r\n\r\n";
  };
  EXPECT_EQ(parsed(fields_of(60), limits).status, 0);
  EXPECT_EQ(parsed(fields_of(61), limits).status, 431);
  EXPECT_EQ(parsed(first + std::string(59, 'a'), limits).status, 431) << "before its end is there";
  EXPECT_EQ(parsed(first + host + "a: b\r\nc: d\r\n\r\n", limits).status, 0);
  EXPECT_EQ(parsed(first + host + "a: b\r\nc: d\r\ne: f\r\n\r\n", limits).status, 431);
}

TEST(RequestParser, HoldsTheBodyToItsLimitWhileItComes) {
  const auto chunks = [](const std::string& body) {
    return http_request("POST", "/", "transfer-encoding: chunked\r\n", body);
  };
  const std::string full = chunks("3e8\r\n" + std::string(1000, 'a') + "\r\n");
  EXPECT_TRUE(parsed(full + "0\r\n\r\n").is_done);
  EXPECT_EQ(parsed(full + "1\r\nb\r\n0\r\n\r\n").status, 413);
  const Limits limits{.header_bytes = 60};
  EXPECT_EQ(parsed(chunks("1;" + std::string(70, 'a')), limits).status, 400);
  EXPECT_EQ(parsed(chunks("0\r\n" + std::string(70, 'a')), limits).status, 400);
}

}  // namespace
}  // namespace memlayers::http
