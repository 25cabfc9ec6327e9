// SPDX-License-Identifier: Apache-2.0
// Between a handler's threads and the server's: the request, and what is answered but not yet taken
// by the connection. It outlives the connection and the server where a handler holds its Exchange.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "http/head_text.h"
#include "http/server.h"

namespace memlayers::http {

class BodyFile;

class Channel {
 public:
  // `wake` is called, from any thread, when there is something for the connection to take.
  Channel(Request request, bool is_http10, std::size_t most_unread, std::function<void()> wake);

  // Of the Exchange, from any thread.
  const Request& request() const { return request_; }
  void answer(Response response);
  void begin(int status, Fields headers);
  bool write(const std::string& piece);
  void end();
  void on_gone(std::function<void()> call);
  void abandon();  // nobody will say more

  // Of the connection, from the server's thread.
  struct Taken {
    std::optional<Head> head = {};
    std::string bytes = {};
    bool is_whole = false;   // nothing follows
    bool is_broken = false;  // nor will it, though the answer has no end, or not even a beginning
    bool is_unread = false;  // more waits than may
  };
  Taken take();
  void sent(std::size_t bytes);  // of those taken
  bool has_begun() const;
  // The client is gone, or its time over: calls on_gone. An answer that has not begun can still be
  // given.
  void leave();
  void detach();  // no more of `wake`

 private:
  enum class State { kOpen, kBegun, kEnded, kAbandoned };
  bool is_over() const { return state_ == State::kEnded || state_ == State::kAbandoned; }
  void wake();  // with the mutex

  const Request request_;
  const bool is_http10_;
  const std::size_t most_unread_;

  mutable std::mutex mutex_;
  std::function<void()> wake_, on_gone_;
  State state_ = State::kOpen;
  bool is_gone_ = false, is_unread_ = false, is_awake_ = false;
  bool is_silent_ = false;    // the answer has no body
  std::optional<Head> head_;  // not taken yet
  std::string bytes_;         // likewise, as they are sent
  std::size_t unread_ = 0;    // bytes written and not sent
};

// What a handler holds.
class ChannelExchange final : public Exchange {
 public:
  ChannelExchange(std::shared_ptr<Channel> channel, std::shared_ptr<BodyFile> file)
      : channel_(std::move(channel)), file_(std::move(file)) {}
  ~ChannelExchange() override { channel_->abandon(); }
  ChannelExchange(const ChannelExchange&) = delete;
  ChannelExchange& operator=(const ChannelExchange&) = delete;

  const Request& request() const override { return channel_->request(); }
  void answer(Response response) override { channel_->answer(std::move(response)); }
  void begin(int status, Fields headers) override { channel_->begin(status, std::move(headers)); }
  bool write(std::string piece) override { return channel_->write(piece); }
  void end() override { channel_->end(); }
  void on_gone(std::function<void()> call) override { channel_->on_gone(std::move(call)); }

 private:
  std::shared_ptr<Channel> channel_;
  std::shared_ptr<BodyFile> file_;  // there as long as somebody may read it
};

}  // namespace memlayers::http
