// SPDX-License-Identifier: Apache-2.0
#include "io/json.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "io/file_kind.h"
#include "io/shown.h"
#include "io/utf8.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;
using EachMember = std::function<void(const std::string&, const Json&)>;

// What reads or prints a tree may recurse; no file of ours nests deeper than a few levels.
constexpr std::size_t kMaxDepth = 64;
// A value in a message.
constexpr std::size_t kMostOfValue = 80, kMostOfMistake = 20;

// "line 3, column 7" of a text of several lines, else "column 7"; both from 1, columns in bytes.
std::string place_of(std::string_view text, std::size_t offset) {
  const std::string_view head = text.substr(0, offset);
  const auto line = std::count(head.begin(), head.end(), '\n') + 1;
  const std::size_t start = head.find_last_of('\n') + 1;  // 0 where there is none
  std::string column = "column " + std::to_string(offset - start + 1);
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos || end + 1 == text.size()) return column;
  return "line " + std::to_string(line) + ", " + column;
}

// The objects of a tree: where a new name goes. Null for one that is there already.
template <class J>
class NewMembers;

template <>
class NewMembers<Json> {
 public:
  void open(bool /*is_object*/) {}
  void close() {}
  Json* add(Json& object, std::string& name) {
    const auto [place, is_new] =
        object.get_ref<Json::object_t&>().emplace(std::move(name), nullptr);
    name = place->first;
    return is_new ? &place->second : nullptr;
  }
};

// Members stand in a list, which takes a name in no time and finds one in a time that goes with
// their number: so the names are kept beside.
template <>
class NewMembers<OrderedJson> {
 public:
  void open(bool is_object) { names_.emplace_back(is_object ? kUsual : 0); }
  void close() { names_.pop_back(); }
  OrderedJson* add(OrderedJson& object, std::string& name) {
    if (!names_.back().insert(name).second) return nullptr;
    auto& members = object.get_ref<OrderedJson::object_t&>();
    members.OrderedJson::object_t::Container::emplace_back(name, nullptr);
    return &members.back().second;
  }

 private:
  static constexpr std::size_t kUsual = 8;
  std::vector<std::unordered_set<std::string>> names_;  // of the objects that are open
};

// Builds the tree while the parser, which does not recurse, goes through the text.
template <class J>
class Tree final : public nlohmann::json_sax<J> {
 public:
  Tree(std::string_view text, const std::string& where, const EachMember* each)
      : text_(text), where_(where), each_(each) {}
  J take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(std::int64_t value) override { return put(value); }
  bool number_unsigned(std::uint64_t value) override { return put(value); }
  bool number_float(double value, const std::string& /*text*/) override { return put(value); }
  bool string(std::string& value) override { return put(std::move(value)); }
  bool binary(typename J::binary_t& /*value*/) override { return false; }  // JSON has none
  bool start_object(std::size_t /*count*/) override { return open(J::object()); }
  bool start_array(std::size_t /*count*/) override { return open(J::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    member_ = members_.add(*open_.back(), name);
    if (member_ == nullptr) {
      throw Error(where_ + ": expected each name once, got " + quote(name) + " twice");
    }
    if (open_.size() == 1 && each_ != nullptr) {
      member_of_root_ = member_;
      name_in_root_ = name;
    }
    return true;
  }

  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& error) override {
    constexpr int kNumberOverflow = 406;
    if (error.id == kNumberOverflow) {
      throw Error(where_ + ": expected numbers that a double holds, got " +
                  quote(token, kMostOfMistake));
    }
    if (position > text_.size()) {
      throw Error(where_ + ": expected JSON, got one that ends too early, after " +
                  std::to_string(text_.size()) + " bytes");
    }
    std::size_t start = position - std::min<std::size_t>(position, 1);  // the last byte read
    const auto is_of_word = [&](std::size_t at) {
      return std::isalnum(static_cast<unsigned char>(text_[at])) != 0;
    };
    while (start > 0 && is_of_word(start) && is_of_word(start - 1)) --start;
    throw Error(where_ + ": expected JSON, got " + quote(text_.substr(start), kMostOfMistake) +
                " at " + place_of(text_, start));
  }

 private:
  J& place(J value) {
    if (open_.empty()) return root_ = std::move(value);
    if (open_.back()->is_array()) {
      return open_.back()->template get_ref<typename J::array_t&>().emplace_back(std::move(value));
    }
    return *member_ = std::move(value);
  }
  bool put(J value) {
    place(std::move(value));
    return ended();
  }
  bool open(J value) {
    if (open_.size() == kMaxDepth) {
      throw Error(where_ + ": expected JSON nested at most " + std::to_string(kMaxDepth) +
                  " deep, got more");
    }
    members_.open(value.is_object());
    open_.push_back(&place(std::move(value)));
    return true;
  }
  bool close() {
    members_.close();
    open_.pop_back();
    return ended();
  }
  // A value is whole; a member of the root may be given away. Its name stays, to be found twice.
  bool ended() {
    if constexpr (std::is_same_v<J, Json>) {
      if (each_ == nullptr || open_.size() != 1 || !root_.is_object()) return true;
      (*each_)(name_in_root_, *member_of_root_);
      *member_of_root_ = nullptr;
    }
    return true;
  }

  std::string_view text_;
  const std::string& where_;
  const EachMember* each_;
  J root_;
  std::vector<J*> open_;  // from the root down; none grows but the last, so none moves
  NewMembers<J> members_;
  J *member_ = nullptr, *member_of_root_ = nullptr;  // of the last name
  std::string name_in_root_;
};

template <class J>
J parse(std::string_view text, const std::string& where, const EachMember* each) {
  if (const std::string_view kind = known_kind(text); !kind.empty()) {
    throw Error(where + ": expected JSON, got " + std::string(kind));
  }
  check_utf8(text, where);
  const std::size_t zero = text.find('\0');  // the parser would take it for the end
  if (zero != std::string_view::npos) {
    throw Error(where + ": expected JSON, got a zero byte at " + place_of(text, zero));
  }
  Tree<J> tree(text, where, each);
  J::sax_parse(text, &tree);
  return tree.take();
}

// Appends to `text` until it is long enough.
void print(const Json& value, std::string& text) {
  if (text.size() > kMostOfValue) return;
  if (value.is_string()) {
    text += quote(value.get_ref<const std::string&>(), kMostOfValue);
  } else if (value.is_structured()) {
    text += value.is_object() ? '{' : '[';
    bool is_first = true;
    for (const auto& [name, member] : value.items()) {
      if (text.size() > kMostOfValue) return;
      if (!std::exchange(is_first, false)) text += ',';
      if (value.is_object()) text += quote(name, kMostOfValue) + ":";
      print(member, text);
    }
    text += value.is_object() ? '}' : ']';
  } else {
    text += value.dump();
  }
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  return parse<Json>(text, where, nullptr);
}

OrderedJson parse_ordered_json(std::string_view text, const std::string& where) {
  return parse<OrderedJson>(text, where, nullptr);
}

void parse_json_members(std::string_view text, const std::string& where, const EachMember& each) {
  const Json root = parse<Json>(text, where, &each);
  if (!root.is_object()) throw Error(where + ": expected a JSON object, got " + brief(root));
}

std::string brief(const Json& value) {
  std::string text;
  print(value, text);
  return shown(text, kMostOfValue);
}

}  // namespace memlayers::io
