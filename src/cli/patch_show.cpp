// SPDX-License-Identifier: Apache-2.0
// memlayers patch show, memlayers patch diff.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>

#include "cli/output.h"
#include "cli/patches.h"
#include "cli/terminal.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "memlayers/ops.h"
#include "memlayers/slots.h"
#include "ops/gather/single_rows.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;
using Table = std::vector<std::vector<std::string>>;

struct ShownSlot {
  std::int64_t slot, row_key, column_key;
  float norm, from_pool;  // of the row, and of what it differs by from the pool's now
  std::string writer;     // of the pool's row: an id, "" for the base
};

struct ShownSubKey {
  SubKeyPlace place;
  double norm;
  std::string writer;  // "" for the model
};

std::vector<ShownSlot> slots_of(const Patch& patch, const Snapshot& pool) {
  std::vector<std::byte> rows_now(patch.slots.size() * static_cast<std::size_t>(pool.row_bytes()));
  pool.read_rows(patch.slots, rows_now);
  const at::Tensor rows = ops::decode_rows(patch.rows, patch.row_dtype, patch.width);
  const at::Tensor norm = rows.norm(2, 1);
  const at::Tensor change =
      (rows - ops::decode_rows(rows_now, patch.row_dtype, patch.width)).norm(2, 1);
  std::vector<ShownSlot> slots;
  for (std::size_t i = 0; i < patch.slots.size(); ++i) {
    const std::int64_t slot = patch.slots[i];
    const auto [row, column] = cell_of(slot);
    const auto at = static_cast<std::int64_t>(i);
    slots.push_back({slot, row, column, norm[at].item<float>(), change[at].item<float>(),
                     pool.writer_of(slot).value_or("")});
  }
  return slots;
}

std::vector<ShownSubKey> sub_keys_of(const Patch& patch, const Snapshot& pool) {
  const auto width = static_cast<std::size_t>(patch.sub_keys.width);
  std::vector<ShownSubKey> sub_keys;
  for (std::size_t i = 0; i < patch.sub_keys.places.size(); ++i) {
    const SubKeyPlace& place = patch.sub_keys.places[i];
    double sum = 0;
    for (const float x : std::span(patch.sub_keys.numbers).subspan(i * width, width)) {
      sum += double{x} * double{x};
    }
    sub_keys.push_back({place, std::sqrt(sum), pool.writer_of(place).value_or("")});
  }
  return sub_keys;
}

Json json_of(const Patch& patch, const std::vector<ShownSlot>& slots,
             const std::vector<ShownSubKey>& sub_keys) {
  Json slot_list = Json::array(), key_list = Json::array();
  for (const ShownSlot& one : slots) {
    slot_list.push_back({{"slot", one.slot},
                         {"row_key", one.row_key},
                         {"column_key", one.column_key},
                         {"norm", as_written(one.norm)},
                         {"from_pool", as_written(one.from_pool)},
                         {"writer", one.writer}});
  }
  for (const ShownSubKey& one : sub_keys) {
    Json json = place_json(one.place);
    json["norm"] = one.norm;
    json["writer"] = one.writer;
    key_list.push_back(std::move(json));
  }
  return {{"id", patch.id},
          {"pool", patch.pool},
          {"width", patch.width},
          {"row_dtype", row_type_name(patch.row_dtype)},
          {"notes", patch.notes},
          {"rows", patch.slots.size()},
          {"slots", std::move(slot_list)},
          {"erased", patch.erased},
          {"sub_keys", std::move(key_list)}};
}

// The first `most` of a list as lines below `head`; nothing for an empty one.
template <class Item, class RowOf>
void print_first(const std::vector<Item>& list, std::int64_t most, std::vector<std::string> head,
                 const RowOf& row_of) {
  if (list.empty()) return;
  Table lines{std::move(head)};
  for (const Item& item : list) {
    if (static_cast<std::int64_t>(lines.size()) > most) break;
    lines.push_back(row_of(item));
  }
  std::cout << table(lines);
}

void print(const Patch& patch, const std::vector<ShownSlot>& slots,
           const std::vector<ShownSubKey>& sub_keys, std::int64_t most) {
  const auto count = static_cast<std::int64_t>(slots.size());
  std::cout << "patch " << io::shown(patch.id) << ": "
            << size_text(count_text(count, "row") + " of " + std::to_string(patch.width) + " " +
                             row_type_name(patch.row_dtype),
                         static_cast<std::int64_t>(patch.erased.size()),
                         static_cast<std::int64_t>(sub_keys.size()))
            << '\n';
  for (const auto& [name, value] : patch.notes) {
    std::cout << "  " << io::shown(name) << ": " << io::shown(value) << '\n';
  }
  const auto writer_text = [&](const std::string& writer, const char* base) {
    return writer.empty() ? base : writer == patch.id ? "this patch" : io::shown(writer);
  };
  print_first(slots, most, {"slot", "cell", "norm", "from the pool's", "now written by"},
              [&](const ShownSlot& one) -> std::vector<std::string> {
                return {std::to_string(one.slot),
                        std::to_string(one.row_key) + "," + std::to_string(one.column_key),
                        short_number(one.norm), short_number(one.from_pool),
                        writer_text(one.writer, "the base")};
              });
  print_first(sub_keys, most,
              {"sub-key of layer", "head", "half", "number", "norm", "now written by"},
              [&](const ShownSubKey& one) -> std::vector<std::string> {
                return {std::to_string(one.place.layer), std::to_string(one.place.head),
                        std::to_string(one.place.half),  std::to_string(one.place.index),
                        short_number(one.norm),          writer_text(one.writer, "the model")};
              });
  const std::size_t all = std::max(slots.size(), sub_keys.size());
  if (static_cast<std::int64_t>(all) > most) {
    std::cout << "... (--rows " << all << " shows all)\n";
  }
}

Json json_of(const std::vector<SubKeyPlace>& places) {
  Json json = Json::array();
  for (const SubKeyPlace& place : places) json.push_back(place_json(place));
  return json;
}

// One line of a table of differences: how many places, and the first of them.
template <class Place, class TextOf>
std::vector<std::string> line_of(const std::string& what, const std::vector<Place>& places,
                                 std::int64_t most, const TextOf& text) {
  std::string some;
  for (std::size_t i = 0; i < places.size() && static_cast<std::int64_t>(i) < most; ++i) {
    some += (i == 0 ? "" : " ") + text(places[i]);
  }
  if (static_cast<std::int64_t>(places.size()) > most) some += " ...";
  return {what, std::to_string(places.size()), some};
}

template <class Place, class TextOf>
void print(const char* places, const char* one, const Patch& first, const Patch& second,
           const PlacesDiff<Place>& found, std::int64_t most, const TextOf& text) {
  std::cout << table(
      {{places, "number", "which"},
       line_of("only in " + io::shown(first.id), found.only_first, most, text),
       line_of("only in " + io::shown(second.id), found.only_second, most, text),
       line_of(std::string("in both, same ") + one, found.same, most, text),
       line_of(std::string("in both, another ") + one, found.different, most, text)});
}

}  // namespace

int show_patch(const PatchArguments& arguments) {
  const Snapshot pool = StoreReader::open(pool_of(arguments)).snapshot();
  const Patch patch = find_patch(pool, arguments.patches.front());
  if (patch.pool != pool.pool_id() || patch.width != pool.width() ||
      patch.row_dtype != pool.row_dtype()) {
    throw Error("patch " + io::shown(patch.id) + ": expected one for pool " +
                io::shown(pool.pool_id()) + ", got one for pool " + io::shown(patch.pool));
  }
  const std::vector<ShownSlot> slots = slots_of(patch, pool);
  const std::vector<ShownSubKey> sub_keys = sub_keys_of(patch, pool);
  if (arguments.is_json) {
    print_json(json_of(patch, slots, sub_keys));
  } else {
    print(patch, slots, sub_keys, arguments.rows);
  }
  return 0;
}

int show_diff(const PatchArguments& arguments) {
  const Snapshot pool = StoreReader::open(pool_of(arguments)).snapshot();
  const Patch first = find_patch(pool, arguments.patches[0]),
              second = find_patch(pool, arguments.patches[1]);
  const PatchDiff found = diff(first, second);
  if (arguments.is_json) {
    print_json({{"first", first.id},
                {"second", second.id},
                {"only_first", found.only_first},
                {"only_second", found.only_second},
                {"same", found.same},
                {"different", found.different},
                {"sub_keys",
                 {{"only_first", json_of(found.sub_keys.only_first)},
                  {"only_second", json_of(found.sub_keys.only_second)},
                  {"same", json_of(found.sub_keys.same)},
                  {"different", json_of(found.sub_keys.different)}}}});
    return 0;
  }
  print<std::int64_t>("slots", "row", first, second, found, arguments.rows,
                      [](std::int64_t slot) { return std::to_string(slot); });
  if (first.sub_keys.places.empty() && second.sub_keys.places.empty()) return 0;
  print("sub-keys (layer.head.half.number)", "numbers", first, second, found.sub_keys,
        arguments.rows, [](const SubKeyPlace& place) { return place_text(place); });
  return 0;
}

}  // namespace memlayers::cli
