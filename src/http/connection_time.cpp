// SPDX-License-Identifier: Apache-2.0
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>

#include "http/connection.h"
#include "io/number_text.h"

namespace memlayers::http {
namespace {

// How often one looks whether a client is still there whose bytes are not read. (One that has sent
// more than the system takes is noticed by what is written to it.)
constexpr double kLookSeconds = 0.1;

std::string seconds_text(double seconds) { return io::number_text(seconds) + " s"; }

}  // namespace

void Connection::enter(Phase phase) {
  phase_ = phase;
  phase_end_ = Time::max();
  arm();
  shared_.on_change(*this);
}

void Connection::enter(Phase phase, double seconds) {
  enter(phase);
  phase_end_ = after(Clock::now(), seconds);
  arm();
}

void Connection::arm() {
  if (phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kAnswer && is_full() && phase_end_ == Time::max()) {
    phase_end_ = after(Clock::now(), kLookSeconds);
  }
  const Time due = std::min({phase_end_, request_end_, stall_end_});
  if (due >= armed_) return;  // it looks again when it fires
  armed_ = due;
  timer_.expires_at(due);
  timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->guarded([&] { self->on_timer(); });
  });
}

void Connection::on_timer() {
  if (phase_ == Phase::kClosed) return;
  armed_ = Time::max();
  const Time now = Clock::now();
  if (now >= stall_end_) {
    lose();
  } else if (now >= request_end_) {
    on_request_end();
  } else if (now >= phase_end_) {
    on_phase_end();
  }
  arm();
}

void Connection::on_phase_end() {
  const Limits& limits = shared_.limits;
  switch (phase_) {
    case Phase::kHeader:
      if (input().empty()) return cut();  // nothing was asked
      throw BadRequest(408, "expected a header within " + seconds_text(limits.header_s));
    case Phase::kBody:
      throw BadRequest(408, "expected a body of at least " + io::number_text(limits.body_rate) +
                                " bytes a second");
    case Phase::kAnswer:
      phase_end_ = Time::max();
      if (is_full() && has_left()) on_input_end();
      return;
    default:
      cut();
  }
}

void Connection::on_request_end() {
  const std::string sentence =
      "expected to be done within " + seconds_text(shared_.limits.request_s);
  if (phase_ == Phase::kBody) throw BadRequest(408, sentence);
  // Part of it is sent, or waits for a client that does not read.
  if (!channel_ || is_answered_ || status_ != 0) return lose();
  request_end_ = Time::max();  // the answer's own writing has write_stall_s
  const auto channel = channel_;
  channel->detach();
  channel->leave();
  if (phase_ == Phase::kAnswer) answer(shared_.error(504, sentence), /*closes=*/true);
}

bool Connection::has_left() {
  tcp_info info{};
  socklen_t size = sizeof(info);
  const int failed = ::getsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size);
  return failed == 0 && info.tcpi_state != TCP_ESTABLISHED;
}

}  // namespace memlayers::http
