// SPDX-License-Identifier: Apache-2.0
#include "support/fake_exchange.h"

#include <gtest/gtest.h>

#include <chrono>

namespace memlayers::testing {

void FakeExchange::answer(http::Response response) {
  {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(has_begun_) << "an answer behind the beginning of another";
    if (is_over_) return;  // the first counts
    response_ = std::move(response);
    is_over_ = true;
  }
  changed_.notify_all();
}

void FakeExchange::begin(int status, http::Fields headers) {
  const std::lock_guard lock(mutex_);
  EXPECT_FALSE(has_begun_ || is_over_) << "a second beginning";
  has_begun_ = true;
  response_.status = status;
  response_.headers = std::move(headers);
}

bool FakeExchange::write(std::string piece) {
  {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(has_begun_) << "written before the header";
    EXPECT_FALSE(is_over_) << "written behind the end: " << piece;
    if (is_gone_) return false;
    response_.body += piece;
  }
  changed_.notify_all();
  return true;
}

void FakeExchange::end() {
  {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(has_begun_);
    is_over_ = true;
  }
  changed_.notify_all();
}

void FakeExchange::on_gone(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    if (is_over_) return;
    if (!is_gone_) {
      on_gone_ = std::move(call);
      return;
    }
  }
  call();
}

void FakeExchange::leave() {
  std::function<void()> call;
  {
    const std::lock_guard lock(mutex_);
    is_gone_ = true;
    call = std::move(on_gone_);
  }
  if (call) call();
}

bool FakeExchange::is_watched() const {
  const std::lock_guard lock(mutex_);
  return on_gone_ != nullptr;
}

bool FakeExchange::is_over() const {
  const std::lock_guard lock(mutex_);
  return is_over_;
}

void FakeExchange::wait_for_news() const {
  std::unique_lock lock(mutex_);
  if (is_over_) return;
  changed_.wait_for(lock, std::chrono::milliseconds(1));
}

http::Response FakeExchange::response() const {
  const std::lock_guard lock(mutex_);
  return response_;
}

std::string header_of(const http::Response& response, const std::string& name) {
  for (const auto& [field, value] : response.headers) {
    if (field == name) return value;
  }
  return {};
}

http::Request request_of(const std::string& method, const std::string& path,
                         const std::string& body, http::Fields headers) {
  http::Request request;
  request.method = method;
  request.path = path;
  request.headers = std::move(headers);
  request.body = body;
  request.peer = "127.0.0.1";
  request.id = "request-1";
  return request;
}

}  // namespace memlayers::testing
