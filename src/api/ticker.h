// SPDX-License-Identifier: Apache-2.0
// A clock for streams that are silent: proxies and clients give up a connection on which nothing
// comes.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace memlayers::api {

using Clock = std::chrono::steady_clock;

struct Ticked {
  virtual ~Ticked() = default;
  virtual bool tick(Clock::time_point now) = 0;  // quick; whether it wants more of them
};

class Ticker {
 public:
  explicit Ticker(double period_s);
  ~Ticker() { stop(); }
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;
  // Holds it, and ticks each period from now on, as long as it wants.
  void add(std::shared_ptr<Ticked> ticked);
  void stop();

 private:
  void run();

  const std::chrono::duration<double> period_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Ticked>> all_;  // under mutex_
  bool is_over_ = false;                      // under mutex_
  std::thread thread_;
};

}  // namespace memlayers::api
