// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <tuple>
#include <utility>

#include "http/body_file.h"
#include "http/connection.h"

namespace memlayers::http {
namespace {

constexpr std::size_t kKeptOutput = 16 << 10;  // of a buffer that is empty
constexpr int kClientClosed = 499;             // nginx's number for a client that left

}  // namespace

const Request& Connection::request() const {
  static const Request none;
  if (channel_) return channel_->request();
  return parser_ ? parser_->request() : none;
}

void Connection::log(int status) const {
  const std::uint64_t bytes = sent_ - std::min(sent_, head_bytes_);
  if (channel_ || parser_) return shared_.log(request(), status, bytes, request_start_);
  Request unread;
  unread.peer = peer_;
  shared_.log(unread, status, bytes, request_start_);
}

void Connection::answer(const Response& response, bool closes) {
  const std::string& id = request().id;
  closes_ = closes;
  status_ = final_status(response.status);
  const Head head{status_, response.headers, BodyEnd::kLength, response.body.size()};
  const std::string text =
      head_text(head, closes_, id.empty() ? shared_.random_id() : id, shared_.date());
  head_bytes_ += text.size();
  output_ += text;
  if (request().method != "HEAD" && has_body(status_)) output_ += response.body;
  is_answered_ = true;
  if (phase_ != Phase::kAnswer) enter(Phase::kAnswer);
  flush();
}

void Connection::wait_to_write() {
  if (is_writing_) return;
  is_writing_ = true;
  socket_.async_wait(asio::ip::tcp::socket::wait_write,
                     [self = shared_from_this()](const boost::system::error_code& error) {
                       self->is_writing_ = false;
                       if (!error) self->guarded([&] { self->flush(); });
                     });
}

// Sends what there is to send, until there is no more or the client is full.
void Connection::flush() {
  if (phase_ == Phase::kLinger || phase_ == Phase::kClosed) return;
  while (output_at_ < output_.size() || refill()) {
    const ssize_t size = ::send(socket_.native_handle(), output_.data() + output_at_,
                                output_.size() - output_at_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return lose();
    if (size < 0) {
      if (stall_end_ == Time::max()) {
        stall_end_ = after(Clock::now(), shared_.limits.write_stall_s);
      }
      wait_to_write();
      return arm();
    }
    output_at_ += static_cast<std::size_t>(size);
    sent_ += static_cast<std::uint64_t>(size);
    stall_end_ = Time::max();
    if (channel_) channel_->sent(static_cast<std::size_t>(size));
  }
  if (phase_ != Phase::kAnswer) return;
  if (is_answered_) return on_answered();
  if (is_broken_) on_broken();
}

// What the handler has said meanwhile; true where that is something to send.
bool Connection::refill() {
  output_.clear();
  output_at_ = 0;
  if (!channel_ || is_answered_ || is_broken_ || phase_ == Phase::kClosed) return false;
  Channel::Taken taken = channel_->take();
  // A part of an answer is nothing for a client that has left.
  if (taken.is_unread || (taken.head && is_at_end_ && !taken.is_whole)) {
    lose();
    return false;
  }
  if (taken.head) {
    status_ = taken.head->status;
    ends_by_close_ = taken.head->end == BodyEnd::kConnection;
    closes_ = closes_ || ends_by_close_ || shared_.is_draining;
    output_ = head_text(*taken.head, closes_, request().id, shared_.date());
    head_bytes_ += output_.size();
  }
  if (output_.empty()) {
    output_ = std::move(taken.bytes);
  } else {
    output_ += taken.bytes;
  }
  is_answered_ = taken.is_whole;
  is_broken_ = taken.is_broken;
  return !output_.empty();
}

// The handler gave it up: without an answer, or in its middle.
void Connection::on_broken() {
  if (status_ != 0 || is_at_end_) return lose();
  is_broken_ = false;
  answer(shared_.error(500, kServerFailed), closes_);
}

void Connection::on_answered() {
  log(status_);
  forget_request();
  if (closes_ || shared_.is_draining) return is_at_end_ ? cut() : linger();
  enter(Phase::kHeader, shared_.limits.keep_alive_s);
  if (input().empty() && !is_at_end_) return wait_to_read();
  // The next request is there. Not from here: of many small ones each would stand on the last.
  asio::post(shared_.io, [self = shared_from_this()] {
    self->guarded([&] {
      if (self->phase_ == Phase::kHeader) self->process();
    });
  });
}

// Closing at once would make the system throw away what is on its way to a client that still sends.
void Connection::linger() {
  boost::system::error_code ignored;
  std::ignore = socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  input_ = {};
  input_at_ = 0;
  enter(Phase::kLinger, shared_.limits.linger_s);
  wait_to_read();
}

void Connection::lose() {
  if (phase_ == Phase::kBody || phase_ == Phase::kAnswer) {
    log(status_ == 0 ? kClientClosed : status_);
  }
  cut();
}

void Connection::cut() {
  if (phase_ == Phase::kClosed) return;
  const auto self = shared_from_this();
  boost::system::error_code ignored;
  // Of an answer that ends with the connection, an end in order would be taken for its own.
  if (ends_by_close_) {
    std::ignore = socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  }
  std::ignore = socket_.close(ignored);
  timer_.cancel();
  const auto channel = channel_;
  forget_request();
  enter(Phase::kClosed);
  if (channel) channel->leave();
}

void Connection::forget_request() {
  if (channel_) channel_->detach();
  channel_.reset();
  parser_.reset();
  shared_.bodies_bytes -= std::exchange(bytes_in_memory_, 0);
  drop_file();
  piece_ = {};
  is_to_file_ = is_answered_ = is_broken_ = ends_by_close_ = false;
  status_ = 0;
  sent_ = head_bytes_ = 0;
  request_end_ = stall_end_ = Time::max();
  output_at_ = 0;
  output_.clear();
  if (output_.capacity() > kKeptOutput) output_.shrink_to_fit();
}

// One that is not whole; removing it takes a while too. Where it is being made or written to, that
// has to end first.
void Connection::drop_file() {
  if (is_on_disk_ || !file_) return;
  shared_.on_disk([file = std::exchange(file_, nullptr)] {}, [](const std::string&) {});
}

}  // namespace memlayers::http
