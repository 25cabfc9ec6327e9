// SPDX-License-Identifier: Apache-2.0
#include "support/http_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <utility>

namespace memlayers::testing {
namespace {

constexpr int kPatienceMs = 20'000;  // of a machine that is busy with other tests

int connected(std::uint16_t port, const std::string& address, const std::string& from) {
  const bool is_v6 = address.find(':') != std::string::npos;
  const int socket = ::socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  if (is_v6) {
    ::inet_pton(AF_INET6, address.c_str(), &v6.sin6_addr);
  } else {
    ::inet_pton(AF_INET, address.c_str(), &v4.sin_addr);
  }
  if (!from.empty()) {
    sockaddr_in own{};
    own.sin_family = AF_INET;
    ::inet_pton(AF_INET, from.c_str(), &own.sin_addr);
    EXPECT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&own), sizeof(own)), 0);
  }
  const auto* place =
      is_v6 ? reinterpret_cast<const sockaddr*>(&v6) : reinterpret_cast<const sockaddr*>(&v4);
  const socklen_t size = is_v6 ? sizeof(v6) : sizeof(v4);
  if (socket >= 0 && ::connect(socket, place, size) == 0) return socket;
  const int error = errno;
  ::close(socket);
  errno = error;
  return -1;
}

}  // namespace

HttpClient::HttpClient(std::uint16_t port, const std::string& address, const std::string& from)
    : socket_(connected(port, address, from)) {
  EXPECT_GE(socket_, 0) << "connect: errno " << errno;
}
HttpClient::~HttpClient() { close(); }
HttpClient::HttpClient(HttpClient&& other) noexcept
    : socket_(std::exchange(other.socket_, -1)), input_(std::move(other.input_)) {}

void HttpClient::close() {
  if (socket_ >= 0) ::close(std::exchange(socket_, -1));
}

void HttpClient::reset() {
  const linger at_once{1, 0};
  ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close();
}

void HttpClient::finish_sending() { ::shutdown(socket_, SHUT_WR); }

bool HttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t size = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (size <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(size));
  }
  return true;
}

bool HttpClient::receive() {
  pollfd ready{socket_, POLLIN, 0};
  if (::poll(&ready, 1, kPatienceMs) != 1) {
    ADD_FAILURE() << "expected something from the server";
    return false;
  }
  std::array<char, 65536> bytes;
  const ssize_t size = ::recv(socket_, bytes.data(), bytes.size(), 0);
  if (size <= 0) return false;
  input_.append(bytes.data(), static_cast<std::size_t>(size));
  return true;
}

std::optional<std::string> HttpClient::line() {
  std::size_t end = 0;
  while ((end = input_.find("\r\n")) == std::string::npos) {
    if (!receive()) return std::nullopt;
  }
  std::string text = input_.substr(0, end);
  input_.erase(0, end + 2);
  return text;
}

std::string HttpClient::read(std::size_t bytes) {
  while (input_.size() < bytes && receive()) {
  }
  const std::string text = input_.substr(0, bytes);
  input_.erase(0, text.size());
  return text;
}

std::string HttpClient::read_all() {
  while (receive()) {
  }
  return std::exchange(input_, {});
}

bool HttpClient::is_closed() { return read_all().empty(); }

bool HttpClient::is_silent(double seconds) {
  pollfd ready{socket_, POLLIN, 0};
  return input_.empty() && ::poll(&ready, 1, static_cast<int>(seconds * 1000)) == 0;
}

HttpAnswer HttpClient::answer(bool has_body) {
  HttpAnswer answer;
  const auto first = line();
  if (!first) return answer;
  EXPECT_TRUE(first->starts_with("HTTP/1.1 ")) << *first;
  answer.status = std::stoi(first->substr(9, 3));
  while (const auto text = line()) {
    if (text->empty()) break;
    const std::size_t colon = text->find(": ");
    if (colon == std::string::npos) {
      ADD_FAILURE() << "no header field: " << *text;
      return answer;
    }
    std::string name = text->substr(0, colon);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    answer.headers[name] = text->substr(colon + 2);
  }
  if (!has_body || answer.status < 200 || answer.status == 204 || answer.status == 304) {
    answer.is_whole = true;
  } else if (answer.headers.contains("content-length")) {
    const std::size_t size = std::stoul(answer.headers["content-length"]);
    answer.body = read(size);
    answer.is_whole = answer.body.size() == size;
  } else if (answer.headers.contains("transfer-encoding")) {
    while (const auto text = line()) {
      const std::size_t size = std::stoul(*text, nullptr, 16);
      answer.body += read(size);
      answer.is_whole = line() == "" && size == 0;
      if (size == 0) break;
    }
  } else {
    answer.body = read_all();
    answer.is_whole = true;
  }
  return answer;
}

HttpAnswer HttpClient::ask(std::string_view bytes) {
  send(bytes);
  return answer();
}

std::string http_request(const std::string& method, const std::string& path,
                         const std::string& fields, const std::string& body) {
  return method + " " + path + " HTTP/1.1\r\nhost: localhost\r\n" + fields + "\r\n" + body;
}

std::string http_post(const std::string& path, const std::string& body, const std::string& fields) {
  return http_request("POST", path,
                      "content-length: " + std::to_string(body.size()) + "\r\n" + fields, body);
}

}  // namespace memlayers::testing
