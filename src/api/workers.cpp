// SPDX-License-Identifier: Apache-2.0
#include "api/workers.h"

#include <utility>

namespace memlayers::api {

Workers::Workers(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

void Workers::stop() {
  std::deque<std::function<void()>> dropped;  // outside of the lock: what it holds may post
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
    dropped.swap(calls_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Workers::post(std::function<void()> call) {
  {
    const std::lock_guard lock(mutex_);
    if (is_over_) return;
    calls_.push_back(std::move(call));
  }
  changed_.notify_one();
}

void Workers::work() {
  while (true) {
    std::function<void()> call;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return is_over_ || !calls_.empty(); });
      if (is_over_) return;
      call = std::move(calls_.front());
      calls_.pop_front();
    }
    call();
  }
}

}  // namespace memlayers::api
