// SPDX-License-Identifier: Apache-2.0
// A client of a few lines over a socket of this machine, which sends whatever it is told.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace memlayers::testing {

struct HttpAnswer {
  int status = 0;  // 0: the connection ended without one
  std::map<std::string, std::string> headers = {};
  std::string body = {};
  bool is_whole = false;  // it came to its end
};

class HttpClient {
 public:
  // `from`: the address that it has itself, of IPv4; "": any.
  explicit HttpClient(std::uint16_t port, const std::string& address = "127.0.0.1",
                      const std::string& from = "");
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  HttpClient(HttpClient&& other) noexcept;

  bool send(std::string_view bytes);  // all of them; false: the server has left
  void finish_sending();              // as the end of a file
  void close();
  void reset();  // as a machine that lost its connection

  // The next answer, with chunks put together. `has_body`: not to HEAD.
  HttpAnswer answer(bool has_body = true);
  HttpAnswer ask(std::string_view bytes);  // send(), answer()
  std::string read(std::size_t bytes);     // so many, fewer where the connection ends
  std::string read_all();                  // to the connection's end
  bool is_closed();                        // and nothing came before
  bool is_silent(double seconds);          // nothing comes for so long, and it is open

 private:
  bool receive();  // more into input_; false: the end, or nothing for long
  std::optional<std::string> line();

  int socket_ = -1;
  std::string input_;
};

// "GET /path HTTP/1.1", a host, `fields` (each with its line end), the empty line, the body.
std::string http_request(const std::string& method, const std::string& path,
                         const std::string& fields = "", const std::string& body = "");
// The same with content-length.
std::string http_post(const std::string& path, const std::string& body,
                      const std::string& fields = "");

}  // namespace memlayers::testing
