// SPDX-License-Identifier: Apache-2.0
#include "http/shared.h"

#include <exception>
#include <utility>

#include "http/head_text.h"

namespace memlayers::http {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

}  // namespace

Response Shared::error(int status, const std::string& sentence) const {
  std::pair<std::string, std::string> body{sentence + "\n", "text/plain; charset=utf-8"};
  if (handler.error) {
    try {
      body = handler.error(status, sentence);
    } catch (const std::exception&) {  // then in plain text
    }
  }
  return {status, {{"content-type", std::move(body.second)}}, std::move(body.first)};
}

void Shared::log(const Request& request, int status, std::uint64_t bytes, Time start) const {
  if (!handler.log) return;
  try {
    handler.log(request, status, bytes,
                std::chrono::duration<double>(Clock::now() - start).count());
  } catch (const std::exception&) {  // no reason to end anything
  }
}

std::string Shared::random_id() {
  std::string id(32, '0');
  std::uint64_t number = 0;
  for (std::size_t i = 0; i < id.size(); ++i, number >>= 4) {
    if (i % 16 == 0) number = random_();
    id[i] = kHex[number & 15];
  }
  return id;
}

std::string_view Shared::date() {
  using std::chrono::system_clock;
  const auto now = std::chrono::time_point_cast<std::chrono::seconds>(system_clock::now());
  if (const std::int64_t second = now.time_since_epoch().count(); second != date_second_) {
    date_ = date_text(second);
    date_second_ = second;
  }
  return date_;
}

void Shared::on_disk(std::function<void()> job,
                     std::function<void(const std::string& error)> then) {
  if (!disk_) disk_.emplace(1);
  asio::post(*disk_, [this, job = std::move(job), then = std::move(then),
                      alive = asio::make_work_guard(io)]() mutable {
    std::string error;
    try {
      job();
    } catch (const std::exception& failure) {
      error = failure.what();
    }
    job = nullptr;
    asio::post(io, [then = std::move(then), error = std::move(error)] { then(error); });
  });
}

}  // namespace memlayers::http
