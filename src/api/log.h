// SPDX-License-Identifier: Apache-2.0
// What the server tells its operator: one line an event.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "api/json.h"

namespace memlayers::api {

enum class LogFormat { kText, kJson };

// Lines are ASCII without control characters, whatever a client sent: no line forges another one,
// and none moves a terminal's cursor. Functions may be called from several threads.
class Log {
 public:
  // An empty sink: nothing is told.
  Log(LogFormat format, std::function<void(const std::string& line)> sink)
      : format_(format), sink_(std::move(sink)) {}
  // kJson: {"time", "event", fields...}; kText: time, event, name=value ...
  void write(std::string_view event, const Json& fields);

 private:
  const LogFormat format_;
  std::mutex mutex_;
  const std::function<void(const std::string& line)> sink_;  // called under mutex_
};

}  // namespace memlayers::api
