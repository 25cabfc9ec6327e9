// SPDX-License-Identifier: Apache-2.0
// One client: reads a request, has it answered, sends the answer, and so on. Of the server's thread
// alone. Nothing waits: the system tells when there is something to read or room to write, and one
// timer, set anew only where a deadline comes nearer, looks at all deadlines.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "http/channel.h"
#include "http/request_parser.h"
#include "http/shared.h"

namespace memlayers::http {

class BodyFile;

// Of 500: what a handler threw is not for its client.
inline constexpr const char* kServerFailed = "the server failed at this request";

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  enum class Phase {
    kHeader,  // of a request, or waits for one
    kBody,
    kAnswer,
    kLinger,  // the answer is sent, the last; what comes is dropped
    kClosed
  };

  Connection(Shared& shared, asio::ip::tcp::socket socket, std::string peer);

  void serve();                                          // or
  void refuse(int status, const std::string& sentence);  // at once, and no more
  void drain();                                          // no next request
  void cut();                                            // ends it as it is
  Phase phase() const { return phase_; }
  const std::string& peer() const { return peer_; }

  // Acts on what happened; nothing that is thrown ends more than this connection.
  template <class Act>
  void guarded(const Act& act) {
    const auto self = shared_from_this();
    try {
      act();
    } catch (const BadRequest& bad) {
      fail(bad.status(), bad.what());
    } catch (const std::exception&) {
      cut();
    }
  }

 private:
  // What comes in: connection.cpp.
  void wait_to_read();
  void on_readable();
  void on_input_end();
  void process();  // the bytes that are there
  std::string_view input() const { return std::string_view(input_).substr(input_at_); }
  bool is_full() const;  // no more can be read for now
  bool take_header();    // true: there may be more to take
  void on_header();
  void on_admitted(const Admission& admission);
  bool take_body();
  void on_body_bytes(std::size_t bytes);
  void to_disk(std::function<void()> job);
  void on_request();
  void fail(int status, const std::string& sentence);

  // What goes out: connection_output.cpp.
  void answer(const Response& response, bool closes);
  void wait_to_write();
  void flush();
  bool refill();
  void on_answered();
  void on_broken();
  void linger();
  void lose();  // the client is gone
  const Request& request() const;
  void log(int status) const;
  void forget_request();
  void drop_file();

  // Phases and deadlines: connection_time.cpp.
  void enter(Phase phase);                  // without a deadline of its own
  void enter(Phase phase, double seconds);  // it may take so long
  void arm();
  void on_timer();
  void on_phase_end();
  void on_request_end();
  bool has_left();  // though its bytes are not read

  Shared& shared_;
  asio::ip::tcp::socket socket_;
  asio::steady_timer timer_;
  const std::string peer_;
  Phase phase_ = Phase::kHeader;
  bool is_reading_ = false, is_writing_ = false;  // waits for it
  bool is_at_end_ = false;                        // the client sends no more
  bool closes_ = false;                           // after the answer

  std::string input_;  // from input_at_ on, what is not parsed
  std::size_t input_at_ = 0;
  std::string output_;  // from output_at_ on, what is not sent
  std::size_t output_at_ = 0;

  // Of the request: the parser up to its end, then the channel.
  std::unique_ptr<RequestParser> parser_;
  std::shared_ptr<Channel> channel_;
  std::uint64_t most_body_bytes_ = 0;
  bool is_to_file_ = false, is_on_disk_ = false;
  std::shared_ptr<BodyFile> file_;
  std::string piece_;                // of its body, what is not in the file yet
  std::size_t bytes_in_memory_ = 0;  // of its body
  Clock::duration time_left_{};      // of the phase, while the disk is waited for

  // Of the answer.
  bool is_answered_ = false, is_broken_ = false;  // all there will be is in output_
  bool ends_by_close_ = false;
  int status_ = 0;                           // of what is being sent; 0: nothing yet
  std::uint64_t sent_ = 0, head_bytes_ = 0;  // sent_: with the head

  Time request_start_ = Clock::now();
  // Deadlines; max() where there is none. armed_: the timer's.
  Time phase_end_ = Time::max(), request_end_ = Time::max(), stall_end_ = Time::max();
  Time armed_ = Time::max();
};

}  // namespace memlayers::http
