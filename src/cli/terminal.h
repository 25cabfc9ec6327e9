// SPDX-License-Identifier: Apache-2.0
// What a person sees. Progress and notices go to standard error, results to standard output.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace memlayers::cli {

bool is_terminal(int descriptor);  // 0 input, 1 output, 2 error
int terminal_width();              // columns; 100 where there is no terminal

// 1234567 -> "1.23M"; 1536 bytes -> "1.5 KiB"; 75 s -> "1:15".
std::string short_count(double count);
std::string short_number(double value);  // 3 digits; 10000 and more as short_count()
std::string short_bytes(double bytes);
std::string short_time(double seconds);
std::string percent(double share);   // 0.5 -> "50.0 %"
std::string decimals(double value);  // 3 of them

// "memlayers: error: ..." on standard error, one line whatever the text holds.
void print_error(const std::string& text);
void print_warning(const std::string& text);

// A line that is drawn over and over on a terminal, and printed anew every `interval` seconds
// elsewhere.
//   train   42% |########............| 420/1000  loss 3.21  12.3k tok/s  0:31 left
class ProgressBar {
 public:
  ProgressBar(std::string label, std::int64_t total, double interval_s = 5);
  ~ProgressBar();  // ends the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(std::int64_t done, const std::string& note = "");
  void finish();  // draws the last state, unless it was printed, and ends the line
  // Prints a line of its own above the bar.
  void print(const std::string& line);

 private:
  std::string line(double seconds, double seconds_going) const;
  void draw();
  void clear();

  std::string label_;
  std::int64_t total_, done_ = 0, first_ = -1;
  double interval_s_;
  bool is_terminal_, is_drawn_ = false, is_finished_ = false;
  bool is_new_ = true;  // something to draw
  std::string note_;
  // Since when something goes on: what was before it is no part of what the rest will take.
  std::chrono::steady_clock::time_point going_;
  std::chrono::steady_clock::time_point start_, drawn_;
};

// A table with aligned columns; the first column is text, the others are numbers. Cells may hold
// what a file says: they are escaped (io/shown.h).
std::string table(std::vector<std::vector<std::string>> rows);

}  // namespace memlayers::cli
