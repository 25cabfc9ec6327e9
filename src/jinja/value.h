// SPDX-License-Identifier: Apache-2.0
// What expressions give: Python's values, as far as chat templates use them. Lists and dicts never
// change once they are made, as in Jinja's immutable sandbox; so nothing can hold itself.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "jinja/text.h"

namespace memlayers::jinja {

class Value;
struct Sequence;
class Dict;
struct Namespace;
class Callable;
class LoopState;
using Items = std::vector<Value>;

struct Undefined {
  std::shared_ptr<const std::string> why;  // "'x' is undefined"
};
struct None {};

class Value {
 public:
  Value() = default;  // undefined
  explicit Value(None value) : data_(value) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(std::int64_t value) : data_(value) {}
  explicit Value(std::size_t count) : data_(static_cast<std::int64_t>(count)) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}
  explicit Value(std::shared_ptr<Sequence> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<const Dict> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<Namespace> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<const Callable> value) : data_(std::move(value)) {}
  explicit Value(std::shared_ptr<LoopState> value) : data_(std::move(value)) {}
  Value(const char*) = delete;
  static Value undefined(std::string why);
  static Value own_text(std::string_view text) { return Value(Text(text, true)); }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  const std::string& why_undefined() const;
  // Null where it is something else.
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  const Text* text() const { return pointed<const Text>(); }
  Sequence* sequence() const { return pointed<Sequence>(); }
  const Dict* dict() const { return pointed<const Dict>(); }
  Namespace* space() const { return pointed<Namespace>(); }
  const Callable* callable() const { return pointed<const Callable>(); }
  LoopState* loop() const { return pointed<LoopState>(); }

  bool is_number() const { return boolean() || integer() || real(); }  // bool is one in Python
  bool is_list() const;
  bool is_tuple() const;
  bool is_same(const Value& other) const;  // Python's "is"
  std::string_view kind() const;           // "a string", for messages
  int depth() const;                       // of containers inside

 private:
  template <class T>
  T* pointed() const {
    const auto* held = std::get_if<std::shared_ptr<T>>(&data_);
    return held == nullptr ? nullptr : held->get();
  }

  std::variant<Undefined, None, bool, std::int64_t, double, std::shared_ptr<const Text>,
               std::shared_ptr<Sequence>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
               std::shared_ptr<const Callable>, std::shared_ptr<LoopState>>
      data_;
};

// Containers inside containers, at most: what prints or compares them recurses.
constexpr int kMostNested = 100;

enum class SequenceKind { kList, kTuple, kRange, kKeys, kValues, kPairs, kOnce };

struct Sequence {
  SequenceKind kind = SequenceKind::kList;
  Items items = {};
  int depth = 1;
  std::array<std::int64_t, 3> range = {};  // start, stop, step of kRange
  std::size_t taken = 0;                   // of kOnce: a generator gives each element once
};
// Throws Problem where it would nest too deep.
Value make_sequence(SequenceKind kind, Items items);
inline Value make_list(Items items) { return make_sequence(SequenceKind::kList, std::move(items)); }
inline Value make_tuple(Items items) {
  return make_sequence(SequenceKind::kTuple, std::move(items));
}

// In the order in which keys were first set. Keys are what Python hashes.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;
  // Throws Problem for a key that Python could not hash, and for nesting too deep.
  void set(Value key, Value value);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }
  int depth() const { return depth_; }

 private:
  std::optional<std::size_t> place_of(const Value& key) const;
  std::optional<std::size_t> place_of(std::string_view key) const;

  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, std::size_t> by_text_;  // of keys that live in entries_
  std::vector<std::size_t> others_;                            // entries whose keys are no texts
  int depth_ = 1;
};
inline Value make_dict(Dict dict) { return Value(std::make_shared<const Dict>(std::move(dict))); }
bool is_hashable(const Value& value);

// What `namespace()` makes: the one thing that a template can change.
struct Namespace {
  std::map<std::string, Value, std::less<>> members;
};

}  // namespace memlayers::jinja
