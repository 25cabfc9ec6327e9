// SPDX-License-Identifier: Apache-2.0
#include "cli/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <iostream>

#include "io/shown.h"

namespace memlayers::cli {
namespace {

// Room for a sentence with some names in it.
constexpr std::size_t kMostOfMessage = 4000;

std::string format(const char* pattern, double value) {
  std::array<char, 64> buffer{};
  std::snprintf(buffer.data(), buffer.size(), pattern, value);
  return buffer.data();
}

// Code points, good enough for the width of what we print ourselves.
std::size_t columns(const std::string& text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

bool is_terminal(int descriptor) { return ::isatty(descriptor) == 1; }

int terminal_width() {
  constexpr int kDefault = 100;
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kDefault;
  return size.ws_col;
}

std::string short_count(double count) {
  constexpr std::array<const char*, 5> kUnits{"", "k", "M", "B", "T"};
  std::size_t unit = 0;
  while (count >= 999.5 && unit + 1 < kUnits.size()) {
    count /= 1000;
    ++unit;
  }
  return format(unit == 0     ? "%.0f"
                : count < 10  ? "%.2f"
                : count < 100 ? "%.1f"
                              : "%.0f",
                count) +
         kUnits[unit];
}

std::string short_number(double value) {
  char text[32];
  if (value >= 10000) return short_count(value);
  std::snprintf(text, sizeof text, value >= 100 ? "%.0f" : "%.3g", value);
  return text;
}

std::string short_bytes(double bytes) {
  constexpr std::array<const char*, 5> kUnits{" B", " KiB", " MiB", " GiB", " TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  return format(unit == 0 ? "%.0f" : "%.1f", bytes) + kUnits[unit];
}

std::string short_time(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::max(0.0, seconds) + 0.5);
  std::array<char, 64> buffer{};
  if (whole >= 3600) {
    std::snprintf(buffer.data(), buffer.size(), "%lld:%02lld:%02lld",
                  static_cast<long long>(whole / 3600), static_cast<long long>(whole / 60 % 60),
                  static_cast<long long>(whole % 60));
  } else {
    std::snprintf(buffer.data(), buffer.size(), "%lld:%02lld", static_cast<long long>(whole / 60),
                  static_cast<long long>(whole % 60));
  }
  return buffer.data();
}

std::string percent(double share) { return format("%.1f %%", 100 * share); }

std::string decimals(double value) { return format("%.3f", value); }

void print_error(const std::string& text) {
  std::cerr << "memlayers: error: " << io::shown(text, kMostOfMessage) << '\n';
}

void print_warning(const std::string& text) {
  std::cerr << "memlayers: warning: " << io::shown(text, kMostOfMessage) << '\n';
}

ProgressBar::ProgressBar(std::string label, std::int64_t total, double interval_s)
    : label_(std::move(label)),
      total_(std::max<std::int64_t>(1, total)),
      interval_s_(interval_s),
      is_terminal_(is_terminal(STDERR_FILENO)),
      going_(std::chrono::steady_clock::now()),
      start_(going_),
      drawn_(start_) {}

ProgressBar::~ProgressBar() {
  if (!is_finished_ && is_drawn_ && is_terminal_) std::cerr << '\n';
}

void ProgressBar::update(std::int64_t done, const std::string& note) {
  if (first_ < 0) first_ = done;
  is_new_ = is_new_ || done != done_ || note != note_;
  done_ = done;
  note_ = note;
  const auto now = std::chrono::steady_clock::now();
  if (done == first_) going_ = now;
  const double since = std::chrono::duration<double>(now - drawn_).count();
  constexpr double kRedraw = 0.1;
  if (is_drawn_ && since < (is_terminal_ ? kRedraw : interval_s_)) return;
  drawn_ = now;
  draw();
}

void ProgressBar::finish() {
  if (is_finished_) return;
  if (is_new_ || is_terminal_) draw();
  if (is_terminal_) std::cerr << '\n';
  is_finished_ = true;
}

void ProgressBar::print(const std::string& text) {
  if (is_terminal_ && is_drawn_) clear();
  std::cerr << text << '\n';
  if (is_terminal_ && is_drawn_ && !is_finished_) draw();
}

std::string ProgressBar::line(double seconds, double seconds_going) const {
  const double share =
      std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
  const std::int64_t here = done_ - std::max<std::int64_t>(0, first_);
  std::string tail = std::to_string(done_);
  tail.append("/").append(std::to_string(total_));
  if (!note_.empty()) tail.append("  ").append(note_);
  if (done_ < total_ && here > 0) {
    const double left =
        seconds_going / static_cast<double>(here) * static_cast<double>(total_ - done_);
    tail.append("  ").append(short_time(left)).append(" left");
  } else if (done_ >= total_) {
    tail.append("  ").append(short_time(seconds));
  }
  const std::string head = label_ + " " + format("%3.0f", 100 * share) + "% ";
  if (!is_terminal_) return head + tail;
  const int room = terminal_width() - 4 - static_cast<int>(columns(head) + columns(tail));
  std::string bar;
  if (room >= 10) {
    constexpr std::size_t kWidth = 30;
    const std::size_t width = std::min(static_cast<std::size_t>(room), kWidth);
    const auto full = std::min(width, static_cast<std::size_t>(share * static_cast<double>(width)));
    bar.assign(width + 2, '.');
    std::fill_n(bar.begin(), full + 1, '#');
    bar.front() = bar.back() = '|';
  }
  return head + bar + " " + tail;
}

void ProgressBar::draw() {
  const auto now = std::chrono::steady_clock::now();
  const auto seconds = [&](std::chrono::steady_clock::time_point since) {
    return std::chrono::duration<double>(now - since).count();
  };
  const std::string text = line(seconds(start_), seconds(going_));
  if (is_terminal_) {
    std::cerr << "\r\x1b[K" << text << std::flush;
  } else {
    std::cerr << text << '\n';
  }
  is_drawn_ = true;
  is_new_ = false;
}

void ProgressBar::clear() { std::cerr << "\r\x1b[K"; }

std::string table(std::vector<std::vector<std::string>> rows) {
  std::vector<std::size_t> widths;
  for (auto& row : rows) {
    for (std::string& cell : row) cell = io::shown(cell, std::string::npos);
  }
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::size_t space = widths[i] - columns(row[i]);
      if (i == 0) {
        line.append(row[i]).append(space, ' ');
      } else {
        line.append(2 + space, ' ').append(row[i]);
      }
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text.append(line).append("\n");
  }
  return text;
}

}  // namespace memlayers::cli
