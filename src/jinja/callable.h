// SPDX-License-Identifier: Apache-2.0
// What can be called: functions, methods, macros.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/run.h"
#include "jinja/value.h"

namespace memlayers::jinja {

struct Arguments {
  Items positional = {};
  std::vector<std::pair<Text, Value>> named = {};  // a dict's keys may be names

  bool empty() const { return positional.empty() && named.empty(); }
};

// The arguments of a function by its parameters' names, in order; absent ones are not given. Throws
// Problem for one too many and for a name that is none of its.
class Bound {
 public:
  Bound(std::string_view function, const Arguments& arguments,
        std::span<const std::string_view> parameters);

  const Value* find(std::size_t parameter) const {
    const std::optional<Value>& value = values_[parameter];
    return value ? &*value : nullptr;
  }
  const Value& at(std::size_t parameter) const;  // throws Problem where it was not given
  // Of these types; `otherwise` where it was not given. Throws Problem for another type.
  bool truth(std::size_t parameter, bool otherwise) const;  // of any type
  std::int64_t integer(std::size_t parameter, std::int64_t otherwise) const;
  std::int64_t integer(std::size_t parameter) const;
  const Text& text(std::size_t parameter) const;
  bool is_given(std::size_t parameter) const {  // and not none
    const Value* value = find(parameter);
    return value != nullptr && !value->is_none();
  }

 private:
  [[noreturn]] void fail(std::size_t parameter, std::string_view expected) const;

  std::string_view function_;
  std::span<const std::string_view> parameters_;
  std::vector<std::optional<Value>> values_;
};

class Callable {
 public:
  virtual ~Callable() = default;
  virtual std::string_view kind() const = 0;  // "a macro", for messages
  virtual Value call(Run& run, const Arguments& arguments) const = 0;
};

}  // namespace memlayers::jinja
