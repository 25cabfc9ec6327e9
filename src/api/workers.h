// SPDX-License-Identifier: Apache-2.0
// Threads for what neither the HTTP server's thread nor the engine's may wait for: long texts to
// take apart, edits that wait for the disk.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace memlayers::api {

class Workers {
 public:
  explicit Workers(int threads);
  ~Workers() { stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;
  // First come first served. The call must not throw.
  void post(std::function<void()> call);
  // What has begun is finished; what waits or comes is dropped.
  void stop();

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> calls_;  // under mutex_
  bool is_over_ = false;                     // under mutex_
  std::vector<std::thread> threads_;
};

}  // namespace memlayers::api
