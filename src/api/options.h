// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "api/keys.h"
#include "api/log.h"

namespace memlayers::api {

struct ServiceOptions {
  Keys keys = {};
  std::vector<std::string> hosts = {};  // in the header Host, beside loopback; all, with ask keys
  std::vector<std::string> model_aliases = {};  // other names that requests may call the model
  std::int64_t most_choices = 8;                // n
  std::int64_t most_prompts = 128;              // of one completion
  std::uint64_t body_bytes = 4ULL << 20U;       // beyond: 413
  std::uint64_t patch_bytes = 1ULL << 30U;      // of an uploaded patch file
  double comment_s = 1;                         // of silence in a stream, until a comment is sent
  int ask_threads = 2, edit_threads = 2;
  bool has_page = true;  // at "/"
  LogFormat log_format = LogFormat::kText;
  std::function<void(const std::string& line)> log = {};  // from several threads, one at a time
  bool logs_access = false, logs_prompts = false;
};

}  // namespace memlayers::api
