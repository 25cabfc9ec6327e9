// SPDX-License-Identifier: Apache-2.0
// An HTTP/1.1 server whose reads, writes and timers are asynchronous: a client costs a few
// kilobytes and no thread, and one that left is noticed in silence.
//
// It is strict with requests, so that a proxy in front and this server never see two different
// requests in the same bytes: what RFC 9112 lets a server be lenient with is 400. HTTP/1.0 is
// answered too, one request a connection. No socket is ever opened to anywhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "memlayers/error.h"

namespace memlayers::http {

using Fields = std::vector<std::pair<std::string, std::string>>;

struct Request {
  std::string method, path, query;  // path as sent, without the query; // is one /
  Fields headers;                   // names in lower case
  std::string body;
  std::optional<std::string> body_file;  // where Admission says so: it is removed with the exchange
  std::string peer;                      // the client's address
  std::string id;                        // given or ours; `x-request-id` of the answer

  const std::string* header(std::string_view name) const;  // the first; null: absent
};

// Date, x-request-id, connection, content-length and transfer-encoding are the server's own: given
// ones are left out. Control characters in the others become spaces.
struct Response {
  int status = 200;
  Fields headers;
  std::string body;
};

// One request and its answer. Functions may be called from any thread, and none waits for the
// client. Whoever lets go of the last pointer to it has ended it: without an answer it is 500, in
// the middle of one the connection is cut, so that no client takes a part for the whole.
//
// A client that has closed its side of the connection counts as gone, as with nginx and
// llama-server: most who do that have left, and nobody can tell. on_gone() is called then and
// write() is false; but an answer() that is given nevertheless is sent, so that
// `printf 'GET /health ...' | nc -N` has what does not take long.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual const Request& request() const = 0;
  virtual void answer(Response response) = 0;  // the whole answer; the first counts
  // Or piece by piece (chunked; to HTTP/1.0 until the connection's end): begin, then any number of
  // writes, then end.
  virtual void begin(int status, Fields headers) = 0;
  // False where the client is gone, or has not read more than Limits::unread_bytes of what was
  // written (it is gone then).
  virtual bool write(std::string piece) = 0;
  virtual void end() = 0;
  // Calls it once, from the server's thread, when the client leaves before the answer's end, or its
  // time is over; where that is so already, at once and from the caller's thread. It is forgotten
  // with the answer's end.
  virtual void on_gone(std::function<void()> call) = 0;
};

// What is decided by the header alone, before the body is read.
struct Admission {
  std::optional<Response> refusal = {};  // answered instead; the body is not read
  std::uint64_t most_body_bytes = 0;     // more: 413
  bool body_to_file = false;             // Request::body_file
};

// All are called from the server's thread. One that throws ends its request with 500.
struct Handler {
  std::function<Admission(const Request& header)> admit;  // quick: it holds up the server
  std::function<void(std::shared_ptr<Exchange>)> handle;  // likewise
  // Of an error that the server itself answers (413, 431, 408, ...): the body, and its content
  // type. Empty: the sentence as plain text.
  std::function<std::pair<std::string, std::string>(int status, const std::string& sentence)> error;
  // After each answer; may be empty. `bytes`: of the body as sent. 499: the client left before it
  // had an answer. Of a request that was refused for its form, what could be read of it.
  std::function<void(const Request&, int status, std::uint64_t bytes, double seconds)> log;
};

struct Limits {
  std::size_t request_line_bytes = 8 << 10;  // 414
  std::size_t header_bytes = 32 << 10;       // 431; of the fields with their line ends
  std::size_t headers = 100;                 // 431
  double header_s = 10;                      // 408; from its first byte on
  // 408. A body has so long at first; what comes moves its deadline at body_rate, to no more than
  // so long from now.
  double body_grace_s = 10;
  double body_rate = 1024;  // bytes a second
  double keep_alive_s = 10;
  double write_stall_s = 30;                 // nothing of what waits was read: the connection's end
  std::size_t unread_bytes = 4 << 20;        // of one answer's write()s, with the chunks' frames
  std::size_t connections = 1024;            // beyond: 503
  std::size_t connections_per_address = 64;  // beyond: 429; of IPv6 the first 64 bits count
  std::size_t bodies_bytes = 256 << 20;      // of all requests' bodies in memory; beyond: 503
  double request_s = 600;                    // of the whole exchange: 504, or the end of a stream
  double linger_s = 5;  // for a client that still sends to read why it was refused
  std::string body_folder = "/tmp";
};

class Server {
 public:
  // Listens from now on, on an address ("127.0.0.1", "::1", "::" for all) or "localhost", which is
  // 127.0.0.1; other names would have to be asked for. Port 0: any (port()). Throws Error naming
  // host and port, or Limits::body_folder.
  static std::unique_ptr<Server> listen(const std::string& host, std::uint16_t port,
                                        const Limits& limits, Handler handler);
  virtual ~Server() = default;
  virtual std::uint16_t port() const = 0;
  virtual void run() = 0;  // the server's thread, until stop() or drain(), and all is over
  // From any thread, like the others below. From now on every new connection, and every next
  // request on one, is answered 503. What is being answered goes on for so long, then it is cut.
  virtual void drain(double seconds) = 0;
  virtual void stop() = 0;  // at once: what is being answered is cut
  virtual std::size_t connections() const = 0;
};

}  // namespace memlayers::http
