// SPDX-License-Identifier: Apache-2.0
#include "http/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <utility>

#include "http/body_file.h"

namespace memlayers::http {
namespace {

// Read at once: of a body more, so that an upload is not held up.
constexpr std::size_t kHeaderStep = 16 << 10;
// Of requests behind the one that is being answered; the rest waits in the system.
constexpr std::size_t kMostPipelined = 64 << 10;
// What is kept of a buffer that is empty.
constexpr std::size_t kKeptInput = 4 << 10;
constexpr std::size_t kMostIdBytes = 128;

bool is_good_id(std::string_view id) {
  return !id.empty() && id.size() <= kMostIdBytes && std::ranges::all_of(id, [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' ||
           c == '_' || c == '-';
  });
}

}  // namespace

Connection::Connection(Shared& shared, asio::ip::tcp::socket socket, std::string peer)
    : shared_(shared), socket_(std::move(socket)), timer_(shared.io), peer_(std::move(peer)) {}

void Connection::serve() {
  guarded([&] {
    enter(Phase::kHeader, shared_.limits.header_s);
    wait_to_read();
  });
}

void Connection::refuse(int status, const std::string& sentence) {
  guarded([&] { answer(shared_.error(status, sentence), /*closes=*/true); });
}

void Connection::drain() {
  if (phase_ == Phase::kHeader && !parser_ && input().empty()) cut();
}

bool Connection::is_full() const {
  if (phase_ == Phase::kBody) return is_on_disk_;
  return phase_ == Phase::kAnswer && input().size() >= kMostPipelined;
}

void Connection::wait_to_read() {
  if (is_reading_ || is_at_end_ || phase_ == Phase::kClosed || is_full()) return;
  is_reading_ = true;
  socket_.async_wait(asio::ip::tcp::socket::wait_read,
                     [self = shared_from_this()](const boost::system::error_code& error) {
                       self->is_reading_ = false;
                       if (!error) self->guarded([&] { self->on_readable(); });
                     });
}

void Connection::on_readable() {
  if (phase_ == Phase::kClosed) return;
  const std::size_t most = phase_ == Phase::kBody ? shared_.read.size() : kHeaderStep;
  const ssize_t size = ::recv(socket_.native_handle(), shared_.read.data(), most, MSG_DONTWAIT);
  if (size == 0) return on_input_end();
  if (size < 0) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return lose();
  } else if (phase_ != Phase::kLinger) {
    input_.erase(0, input_at_);
    input_at_ = 0;
    input_.append(shared_.read.data(), static_cast<std::size_t>(size));
  }
  process();
}

// The client has closed its side of the connection: no more comes.
void Connection::on_input_end() {
  is_at_end_ = true;
  if (phase_ == Phase::kLinger) return cut();
  if (phase_ != Phase::kAnswer) return process();
  if (!channel_) return;
  channel_->leave();
  if (channel_ && channel_->has_begun()) lose();
}

void Connection::process() {
  while (phase_ == Phase::kHeader ? take_header() : phase_ == Phase::kBody && take_body()) {
  }
  if (input().empty()) {
    input_.clear();
    input_at_ = 0;
    if (input_.capacity() > kKeptInput) input_.shrink_to_fit();
  }
  const bool is_incomplete = phase_ == Phase::kHeader || (phase_ == Phase::kBody && !is_on_disk_);
  if (is_at_end_ && is_incomplete) return lose();
  arm();
  wait_to_read();
}

bool Connection::take_header() {
  if (!parser_) {
    if (input().empty()) return false;
    parser_ = std::make_unique<RequestParser>(shared_.limits);
    request_start_ = Clock::now();
    enter(Phase::kHeader, shared_.limits.header_s);
  }
  input_at_ += parser_->put_header(input());
  if (!parser_->has_header()) return false;
  on_header();
  return true;
}

void Connection::on_header() {
  Request& request = parser_->request();
  request.peer = peer_;
  const std::string* given = request.header("x-request-id");
  request.id = given != nullptr && is_good_id(*given) ? *given : shared_.random_id();
  request_end_ = after(request_start_, shared_.limits.request_s);
  closes_ = !parser_->keeps_alive();
  if (shared_.is_draining) throw BadRequest(503, "the server is stopping");
  Admission admission;
  try {
    admission = shared_.handler.admit(request);
  } catch (const std::exception&) {
    throw BadRequest(500, kServerFailed);
  }
  on_admitted(admission);
}

void Connection::on_admitted(const Admission& admission) {
  if (admission.refusal) return answer(*admission.refusal, closes_ || parser_->has_body());
  if (!parser_->has_body()) return on_request();
  const std::optional<std::uint64_t> bytes = parser_->body_bytes();
  most_body_bytes_ = admission.most_body_bytes;
  if (bytes && *bytes > most_body_bytes_) {
    throw BadRequest(413, "expected a body of at most " + std::to_string(most_body_bytes_) +
                              " bytes, got " + std::to_string(*bytes));
  }
  enter(Phase::kBody, shared_.limits.body_grace_s);
  if (parser_->expects_continue() && input().empty()) {
    output_ = "HTTP/1.1 100 Continue\r\n\r\n";
    head_bytes_ = output_.size();
    flush();
  }
  is_to_file_ = admission.body_to_file;
  if (!is_to_file_ || phase_ != Phase::kBody) return;
  to_disk([self = shared_from_this(), &folder = shared_.limits.body_folder, bytes] {
    self->file_ = std::make_shared<BodyFile>(io::posix(), folder, bytes);
  });
}

bool Connection::take_body() {
  if (is_on_disk_) return false;
  std::string& body = is_to_file_ ? piece_ : parser_->request().body;
  const std::size_t before = body.size();
  if (!parser_->is_done()) input_at_ += parser_->put_body(input(), most_body_bytes_, body);
  if (body.size() > before) on_body_bytes(body.size() - before);
  if (!piece_.empty()) {
    to_disk([file = file_, piece = std::exchange(piece_, {})] { file->append(piece); });
    return false;
  }
  if (!parser_->is_done()) return false;
  on_request();
  return true;
}

void Connection::on_body_bytes(std::size_t bytes) {
  const Limits& limits = shared_.limits;
  phase_end_ = std::min(after(Clock::now(), limits.body_grace_s),
                        after(phase_end_, static_cast<double>(bytes) / limits.body_rate));
  if (is_to_file_) return;
  bytes_in_memory_ += bytes;
  shared_.bodies_bytes += bytes;
  if (shared_.bodies_bytes > limits.bodies_bytes) {
    throw BadRequest(503, "the bodies of all requests are more than " +
                              std::to_string(limits.bodies_bytes) + " bytes");
  }
}

// Nothing is read meanwhile, and it is not the client that is waited for.
void Connection::to_disk(std::function<void()> job) {
  is_on_disk_ = true;
  time_left_ = phase_end_ - Clock::now();
  phase_end_ = Time::max();
  shared_.on_disk(std::move(job), [self = shared_from_this()](const std::string& error) {
    self->guarded([&] {
      self->is_on_disk_ = false;
      if (self->phase_ != Phase::kBody) return self->drop_file();
      self->phase_end_ = Clock::now() + self->time_left_;
      if (!error.empty()) throw BadRequest(507, "the body cannot be stored: " + error);
      self->process();
    });
  });
}

void Connection::on_request() {
  Request& request = parser_->request();
  if (file_) request.body_file = file_->path();
  auto wake = [weak = weak_from_this(), &io = shared_.io] {
    asio::post(io, [weak] {
      if (const auto self = weak.lock()) self->guarded([&] { self->flush(); });
    });
  };
  channel_ = std::make_shared<Channel>(std::move(request), parser_->is_http10(),
                                       shared_.limits.unread_bytes, std::move(wake));
  parser_.reset();
  enter(Phase::kAnswer);
  auto exchange = std::make_shared<ChannelExchange>(channel_, std::exchange(file_, nullptr));
  try {
    shared_.handler.handle(std::move(exchange));
  } catch (const std::exception&) {
    channel_->abandon();
  }
  if (is_at_end_) channel_->leave();
}

void Connection::fail(int status, const std::string& sentence) {
  if (phase_ != Phase::kHeader && phase_ != Phase::kBody) return cut();
  try {
    if (parser_ && parser_->request().id.empty()) {
      parser_->request().peer = peer_;
      parser_->request().id = shared_.random_id();
    }
    answer(shared_.error(status, sentence), /*closes=*/true);
  } catch (const std::exception&) {
    cut();
  }
}

}  // namespace memlayers::http
