// SPDX-License-Identifier: Apache-2.0
#include "http/channel.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace memlayers::http {
namespace {

void append_chunk(std::string& bytes, std::string_view piece) {
  std::array<char, 16> size;  // a length in hexadecimal digits fits
  const auto end = std::to_chars(size.data(), size.data() + size.size(), piece.size(), 16).ptr;
  bytes.append(size.data(), end);
  bytes += "\r\n";
  bytes += piece;
  bytes += "\r\n";
}

}  // namespace

Channel::Channel(Request request, bool is_http10, std::size_t most_unread,
                 std::function<void()> wake)
    : request_(std::move(request)),
      is_http10_(is_http10),
      most_unread_(most_unread),
      wake_(std::move(wake)) {}

void Channel::wake() {
  if (is_awake_ || !wake_) return;
  is_awake_ = true;
  wake_();
}

void Channel::answer(Response response) {
  std::function<void()> forgotten;  // what it holds may end another exchange: not with the mutex
  const std::lock_guard lock(mutex_);
  if (state_ != State::kOpen) return;
  state_ = State::kEnded;
  forgotten.swap(on_gone_);
  const int status = final_status(response.status);
  head_ = Head{status, std::move(response.headers), BodyEnd::kLength, response.body.size()};
  if (request_.method != "HEAD" && has_body(status)) bytes_ = std::move(response.body);
  unread_ = bytes_.size();
  wake();
}

void Channel::begin(int status, Fields headers) {
  const std::lock_guard lock(mutex_);
  if (state_ != State::kOpen) return;
  state_ = State::kBegun;
  status = final_status(status);
  is_silent_ = request_.method == "HEAD" || !has_body(status);
  const BodyEnd end = !has_body(status) ? BodyEnd::kLength
                      : is_http10_      ? BodyEnd::kConnection
                                        : BodyEnd::kChunks;
  head_ = Head{status, std::move(headers), end, 0};
  wake();
}

bool Channel::write(const std::string& piece) {
  const std::lock_guard lock(mutex_);
  if (state_ != State::kBegun || is_gone_ || is_unread_) return false;
  if (is_silent_ || piece.empty()) return true;  // an empty chunk would be the last
  const std::size_t before = bytes_.size();
  if (is_http10_) {
    bytes_ += piece;
  } else {
    append_chunk(bytes_, piece);
  }
  unread_ += bytes_.size() - before;
  is_unread_ = unread_ > most_unread_;
  wake();
  return !is_unread_;
}

void Channel::end() {
  std::function<void()> forgotten;
  const std::lock_guard lock(mutex_);
  if (state_ != State::kBegun) return;
  state_ = State::kEnded;
  forgotten.swap(on_gone_);
  if (!is_http10_ && !is_silent_) bytes_ += "0\r\n\r\n";
  wake();
}

void Channel::on_gone(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    if (is_over()) return;
    if (!is_gone_) {
      on_gone_ = std::move(call);
      return;
    }
  }
  call();
}

void Channel::abandon() {
  std::function<void()> forgotten;
  const std::lock_guard lock(mutex_);
  if (is_over()) return;
  state_ = State::kAbandoned;
  forgotten.swap(on_gone_);
  wake();
}

Channel::Taken Channel::take() {
  const std::lock_guard lock(mutex_);
  is_awake_ = false;
  Taken taken;
  taken.head.swap(head_);
  taken.bytes.swap(bytes_);
  taken.is_whole = state_ == State::kEnded;
  taken.is_broken = state_ == State::kAbandoned;
  taken.is_unread = is_unread_;
  return taken;
}

void Channel::sent(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  unread_ -= std::min(bytes, unread_);
}

bool Channel::has_begun() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::kBegun;
}

void Channel::leave() {
  std::function<void()> call;
  {
    const std::lock_guard lock(mutex_);
    is_gone_ = true;
    call.swap(on_gone_);
  }
  if (!call) return;
  try {
    call();
  } catch (const std::exception&) {  // the client is gone all the same
  }
}

void Channel::detach() {
  std::function<void()> forgotten;
  const std::lock_guard lock(mutex_);
  forgotten.swap(wake_);
}

}  // namespace memlayers::http
