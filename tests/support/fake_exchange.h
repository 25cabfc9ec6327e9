// SPDX-License-Identifier: Apache-2.0
// HTTP without sockets: what a client sends, and what comes back to it.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "http/server.h"

namespace memlayers::testing {

class FakeExchange : public http::Exchange {
 public:
  explicit FakeExchange(http::Request request) : request_(std::move(request)) {}

  const http::Request& request() const override { return request_; }
  void answer(http::Response response) override;
  void begin(int status, http::Fields headers) override;
  bool write(std::string piece) override;
  void end() override;
  void on_gone(std::function<void()> call) override;

  // The client's side.
  void leave();
  bool is_watched() const;  // somebody would hear of its leaving
  bool is_over() const;
  void wait_for_news() const;       // a moment at most
  http::Response response() const;  // status, headers, and all that was written

 private:
  const http::Request request_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  http::Response response_;
  bool has_begun_ = false, is_over_ = false, is_gone_ = false;
  std::function<void()> on_gone_;
};

// The field of that name in lower case; "" where there is none.
std::string header_of(const http::Response& response, const std::string& name);
// A request's line, headers and body.
http::Request request_of(const std::string& method, const std::string& path,
                         const std::string& body = "", http::Fields headers = {});

}  // namespace memlayers::testing
