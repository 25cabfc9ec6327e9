// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "memlayers/error.h"

namespace memlayers::testing {

// The message of the Error that `act` throws.
inline std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "expected an Error";
  return {};
}

// Whether all of `parts` stand in `text`; shows the text where one does not.
inline ::testing::AssertionResult says(const std::string& text,
                                       std::initializer_list<std::string> parts) {
  for (const std::string& part : parts) {
    if (text.find(part) == std::string::npos) {
      return ::testing::AssertionFailure() << "expected \"" << part << "\" in \"" << text << '"';
    }
  }
  return ::testing::AssertionSuccess();
}

// What this process has in RAM now.
inline std::int64_t resident_bytes() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("VmRSS:")) return std::stoll(line.substr(6)) * 1024;
  }
  ADD_FAILURE() << "expected a line VmRSS in /proc/self/status";
  return 0;
}

inline void write_file(const std::string& path, const std::string& content) {
  std::filesystem::remove(path);  // cutting a file that is there makes some disks wait
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace memlayers::testing
