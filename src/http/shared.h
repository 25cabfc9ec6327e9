// SPDX-License-Identifier: Apache-2.0
// What the connections of a server share. Of the server's thread alone.
#pragma once

#include <array>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "http/server.h"

namespace memlayers::http {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

class Connection;

// `seconds` from `start`; far off where they are more than a clock holds.
inline Time after(Time start, double seconds) {
  constexpr double kYear = 365. * 24 * 3600;
  const std::chrono::duration<double> wait(seconds < kYear ? seconds : kYear);
  return start + std::chrono::duration_cast<Clock::duration>(wait);
}

struct Shared {
  Shared(const Limits& given, Handler functions) : limits(given), handler(std::move(functions)) {}

  const Limits limits;
  const Handler handler;
  asio::io_context io{1};
  std::array<char, 64 << 10> read;  // what was read last, by whichever connection
  bool is_draining = false;
  std::size_t bodies_bytes = 0;                     // of requests in memory
  std::function<void(Connection&)> on_change = {};  // it has another phase, or is over

  // An answer of the server's own.
  Response error(int status, const std::string& sentence) const;
  void log(const Request& request, int status, std::uint64_t bytes, Time start) const;
  std::string random_id();
  std::string_view date();

  // Writes to a disk may wait for long: in a thread of their own, in this order. `then` follows in
  // the server's, with the sentence of an Error or "".
  void on_disk(std::function<void()> job, std::function<void(const std::string& error)> then);

 private:
  std::mt19937_64 random_{std::random_device{}()};
  std::int64_t date_second_ = -1;
  std::string date_;
  std::optional<asio::thread_pool> disk_;  // last: its thread uses io
};

}  // namespace memlayers::http
