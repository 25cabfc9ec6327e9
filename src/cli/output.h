// SPDX-License-Identifier: Apache-2.0
// Standard output of the program.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <streambuf>
#include <string>

namespace memlayers::cli {

// std::cout writes through it as long as it lives. What cannot be written (a full disk, a reader
// that is gone) is dropped, and so is all that follows: whoever prints need not know.
class StandardOutput final : std::streambuf {
 public:
  StandardOutput();
  ~StandardOutput() override;
  StandardOutput(const StandardOutput&) = delete;
  StandardOutput& operator=(const StandardOutput&) = delete;
  // Writes what is left: "" where all was delivered, else what the system said.
  std::string finish();

 private:
  int_type overflow(int_type c) override;
  int sync() override;
  std::streamsize xsputn(const char* text, std::streamsize count) override;

  std::array<char, 1 << 16> buffer_;
  std::streambuf* before_;
  bool is_terminal_;
  int error_ = 0;  // errno of the write that failed
};

// One line of standard output. Bytes that are not UTF-8 are replaced.
void print_json(const nlohmann::ordered_json& json);

// For JSON, whose numbers are doubles: that of the shortest text that reads back as this float.
double as_written(float value);

// Of a verb that makes a file: its work is done although nobody reads what it prints. Without it a
// reader that is gone (| head) ends the process, as it does every Unix tool.
void work_without_readers();

}  // namespace memlayers::cli
