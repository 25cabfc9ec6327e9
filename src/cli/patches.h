// SPDX-License-Identifier: Apache-2.0
// What the actions of `memlayers patch` have in common.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "memlayers/store.h"

namespace memlayers::cli {

struct PatchArguments {
  std::string model, out;
  std::vector<std::string> patches;  // files, or ids in the model
  double part = 0.25;
  std::int64_t rows = 10;
  bool is_json = false;
};

// The folder of the model's pool. Throws Error where it has none.
std::string pool_of(const PatchArguments& arguments);

// The id of the pool that begins so; one that is no beginning of any is left as it is, for the
// store to refuse.
std::string full_id(const Snapshot& pool, const std::string& begin);

// A patch file, or one of the pool's by its id.
Patch find_patch(const Snapshot& pool, const std::string& name);

// "1 row", "2 rows"
std::string count_text(std::int64_t count, const std::string& what);
// "3 rows of 64 float32, 1 erased, 2 sub-keys"
std::string size_text(const std::string& rows, std::int64_t erased, std::int64_t sub_keys);
// layer.head.half.number
std::string place_text(const SubKeyPlace& place);
nlohmann::ordered_json place_json(const SubKeyPlace& place);

// memlayers patch show, memlayers patch diff
int show_patch(const PatchArguments& arguments);
int show_diff(const PatchArguments& arguments);

}  // namespace memlayers::cli
