// SPDX-License-Identifier: Apache-2.0
// A server in a thread of its own, for as long as a test wants it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "http/server.h"
#include "support/http_client.h"

namespace memlayers::http {

// Answers with what it was asked: "POST /path?query body".
inline void echo(const std::shared_ptr<Exchange>& exchange) {
  const Request& request = exchange->request();
  exchange->answer(
      {200,
       {{"content-type", "text/plain"}},
       request.method + " " + request.path + "?" + request.query + " " + request.body});
}

inline Handler handler_of(std::function<void(std::shared_ptr<Exchange>)> handle = echo) {
  Handler handler;
  handler.admit = [](const Request&) { return Admission{.most_body_bytes = 1000}; };
  handler.handle = std::move(handle);
  handler.error = [](int status, const std::string& sentence) {
    return std::pair(std::to_string(status) + ": " + sentence, std::string("text/plain"));
  };
  return handler;
}

class Served {
 public:
  explicit Served(Handler handler = handler_of(), const Limits& limits = {},
                  const std::string& host = "127.0.0.1")
      : server_(Server::listen(host, 0, limits, std::move(handler))),
        thread_([this] { server_->run(); }) {}
  ~Served() {
    server_->stop();
    thread_.join();
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;

  Server& server() { return *server_; }
  testing::HttpClient client(const std::string& address = "127.0.0.1") {
    return testing::HttpClient(server_->port(), address);
  }
  int status_of(const std::string& request) { return client().ask(request).status; }

 private:
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

// What one thread tells another.
template <class Value>
class Post {
 public:
  void put(Value value) {
    const std::lock_guard lock(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  // The next, which is waited for; a failure where it does not come.
  Value take() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(20), [&] { return !values_.empty(); })) {
      ADD_FAILURE() << "expected the other thread to say something";
      return Value{};
    }
    Value value = std::move(values_.front());
    values_.erase(values_.begin());
    return value;
  }
  bool is_empty() {
    const std::lock_guard lock(mutex_);
    return values_.empty();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Value> values_;
};

}  // namespace memlayers::http
