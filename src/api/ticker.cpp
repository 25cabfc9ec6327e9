// SPDX-License-Identifier: Apache-2.0
#include "api/ticker.h"

#include <algorithm>
#include <utility>

namespace memlayers::api {

Ticker::Ticker(double period_s) : period_(period_s), thread_([this] { run(); }) {}

void Ticker::stop() {
  std::vector<std::shared_ptr<Ticked>>
      dropped;  // outside of the lock: it may be the last to hold them
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
    dropped.swap(all_);
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Ticker::add(std::shared_ptr<Ticked> ticked) {
  {
    const std::lock_guard lock(mutex_);
    if (is_over_) return;
    all_.push_back(std::move(ticked));
  }
  changed_.notify_all();
}

void Ticker::run() {
  std::unique_lock lock(mutex_);
  while (!is_over_) {
    if (all_.empty()) {
      changed_.wait(lock);
      continue;
    }
    changed_.wait_for(lock, period_, [this] { return is_over_; });
    std::vector<std::shared_ptr<Ticked>> now = all_;
    lock.unlock();  // a tick may write, and what writes may add
    std::erase_if(now, [](const auto& one) { return one->tick(Clock::now()); });
    lock.lock();
    std::erase_if(all_, [&](const auto& one) { return std::ranges::find(now, one) != now.end(); });
    lock.unlock();
    now.clear();
    lock.lock();
  }
}

}  // namespace memlayers::api
