// SPDX-License-Identifier: Apache-2.0
#include "api/memory_json.h"

#include "api/status.h"

namespace memlayers::api {
namespace {

constexpr std::size_t kMostConflicts = 1000;

template <class T>
void put(Json& json, const char* name, const std::optional<T>& value) {
  json[name] = nullptr;
  if (value) json[name] = *value;
}

}  // namespace

Memory& memory_of(const Call& call) {
  if (Memory* memory = call.shared->engine.memory()) return *memory;
  throw Refusal(kNotFound, "no_memory", "this model has no memory layers");
}

http::Fields version_headers(std::uint64_t version) {
  const std::string text = std::to_string(version);
  return {{"x-memlayers-pool-version", text}, {"etag", "\"" + text + "\""}};
}

Json pool_json(const Snapshot& pool) {
  return {{"pool", pool.pool_id()},
          {"version", pool.version()},
          {"slots", pool.rows()},
          {"free", pool.free_slots().size()},
          {"width", pool.width()},
          {"row_dtype", row_type_name(pool.row_dtype())},
          {"overridden", pool.overridden_rows()},
          {"patches", patches_json(pool.patches())},
          {"undone", patches_json(pool.undone())}};
}

Json patch_json(const PatchInfo& patch) {
  return {{"id", patch.id},         {"notes", Json(patch.notes)}, {"rows", patch.rows},
          {"erased", patch.erased}, {"sub_keys", patch.sub_keys}, {"is_kept", patch.is_kept}};
}

Json patches_json(const std::vector<PatchInfo>& patches) {
  Json all = Json::array();
  for (const PatchInfo& patch : patches) all.push_back(patch_json(patch));
  return all;
}

Json committed_json(const Committed& committed) {
  Json conflicts = Json::array(), sub_keys = Json::array();
  for (const Conflict& conflict : committed.conflicts) {
    if (conflicts.size() == kMostConflicts) break;
    conflicts.push_back(
        {{"slot", conflict.slot}, {"earlier", conflict.earlier}, {"later", conflict.later}});
  }
  for (const SubKeyConflict& conflict : committed.sub_key_conflicts) {
    if (sub_keys.size() == kMostConflicts) break;
    sub_keys.push_back({{"layer", conflict.place.layer},
                        {"head", conflict.place.head},
                        {"half", conflict.place.half},
                        {"index", conflict.place.index},
                        {"earlier", conflict.earlier},
                        {"later", conflict.later}});
  }
  return {{"version", committed.version},
          {"was_there", committed.was_there},
          {"num_conflicts", committed.conflicts.size()},
          {"conflicts", conflicts},
          {"num_sub_key_conflicts", committed.sub_key_conflicts.size()},
          {"sub_key_conflicts", sub_keys}};
}

Json teach_json(const TeachStatus& status) {
  Json json{{"id", status.id},
            {"state", status.state},
            {"is_over", status.is_over()},
            {"step", status.step},
            {"steps", status.steps},
            {"recalled", status.recalled},
            {"phrasings", status.phrasings}};
  put(json, "recall", status.recall);
  put(json, "unseen_recall", status.unseen_recall);
  put(json, "kept", status.kept);
  put(json, "perplexity_ratio", status.perplexity_ratio);
  put(json, "patch", status.patch);
  put(json, "pool_version", status.pool_version);
  json["message"] = status.message;
  return json;
}

}  // namespace memlayers::api
