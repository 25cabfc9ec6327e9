// SPDX-License-Identifier: Apache-2.0
#include "cli/patches.h"

#include "io/file_system.h"
#include "io/shown.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers::cli {

std::string pool_of(const PatchArguments& arguments) {
  const std::string folder = resolve_model_folder(arguments.model);
  const std::string pool = io::join(folder, "pool");
  if (!io::posix().is_folder(pool)) {
    throw Error(folder + ": expected a model with a pool, found none");
  }
  return pool;
}

std::string full_id(const Snapshot& pool, const std::string& begin) {
  std::vector<std::string> found;
  for (const auto& list : {pool.patches(), pool.undone()}) {
    for (const PatchInfo& patch : list) {
      if (patch.id == begin) return begin;
      if (!begin.empty() && patch.id.starts_with(begin)) found.push_back(patch.id);
    }
  }
  if (found.size() > 1) {
    throw Error("patch " + begin + ": expected the beginning of one id, got that of " + found[0] +
                " and " + found[1]);
  }
  return found.empty() ? begin : found.front();
}

Patch find_patch(const Snapshot& pool, const std::string& name) {
  return io::posix().exists(name) ? read_patch(name) : pool.patch(full_id(pool, name));
}

std::string count_text(std::int64_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

nlohmann::ordered_json place_json(const SubKeyPlace& place) {
  return {
      {"layer", place.layer}, {"head", place.head}, {"half", place.half}, {"index", place.index}};
}

std::string place_text(const SubKeyPlace& place) {
  return std::to_string(place.layer) + "." + std::to_string(place.head) + "." +
         std::to_string(place.half) + "." + std::to_string(place.index);
}

std::string size_text(const std::string& rows, std::int64_t erased, std::int64_t sub_keys) {
  return rows + (erased == 0 ? "" : ", " + std::to_string(erased) + " erased") +
         (sub_keys == 0 ? "" : ", " + count_text(sub_keys, "sub-key"));
}

}  // namespace memlayers::cli
