// SPDX-License-Identifier: Apache-2.0
// The store of a model's pool from Python: `memlayers patch` as an object. Answers are JSON. All
// throw Error (RuntimeError in Python).
#include "memlayers/store.h"

#include <torch/custom_class.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "io/model_source.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"

namespace memlayers::python {
namespace {

using Json = nlohmann::ordered_json;
using Ids = std::vector<std::string>;

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json json_of(const Committed& committed) {
  Json conflicts = Json::array(), sub_keys = Json::array();
  for (const Conflict& each : committed.conflicts) {
    conflicts.push_back({each.slot, each.earlier, each.later});
  }
  for (const SubKeyConflict& each : committed.sub_key_conflicts) {
    const SubKeyPlace& place = each.place;
    sub_keys.push_back(
        {place.layer, place.head, place.half, place.index, each.earlier, each.later});
  }
  return {{"version", committed.version},
          {"was_there", committed.was_there},
          {"conflicts", conflicts},
          {"sub_key_conflicts", sub_keys}};
}

std::string json_of(const std::vector<Committed>& all) {
  Json json = Json::array();
  for (const Committed& committed : all) json.push_back(json_of(committed));
  return text_of(json);
}

class PyStore : public torch::CustomClassHolder {
 public:
  explicit PyStore(const std::string& model) {
    const std::string folder = resolve_model_folder(model);
    pool_ = io::join(folder, "pool");
    if (!io::posix().is_folder(pool_)) {
      throw Error(folder + ": expected a model with a pool, found none");
    }
    StoreOptions options;  // patches of sub-keys that the model has not are refused
    options.sub_keys = sub_key_grid(io::read_model(io::posix(), folder));
    store_.emplace(Store::open(pool_, options));
  }

  std::string pool() const { return pool_; }
  void close() { store_.reset(); }
  std::string apply(const Ids& files) {
    std::vector<Patch> patches;
    for (const std::string& file : files) patches.push_back(read_patch(file));
    return json_of(store().apply(patches));
  }
  std::string rollback(const Ids& ids) { return json_of(store().rollback(full(ids))); }
  std::string reapply(const Ids& ids) { return json_of(store().reapply(full(ids))); }
  std::string keep(const std::string& id) { return text_of(json_of(store().keep(full({id})[0]))); }
  std::string compact(double part) { return text_of(json_of(store().compact(part))); }
  // By the state of each: applied, kept, rolled back.
  std::string patches() const {
    Json all = Json::array();
    const auto add = [&](const PatchInfo& patch, const char* state) {
      all.push_back({{"id", patch.id},
                     {"state", state},
                     {"rows", patch.rows},
                     {"erased", patch.erased},
                     {"sub_keys", patch.sub_keys},
                     {"notes", patch.notes}});
    };
    const Snapshot now = store().snapshot();
    for (const PatchInfo& patch : now.patches()) add(patch, patch.is_kept ? "kept" : "applied");
    for (const PatchInfo& patch : now.undone()) add(patch, "rolled back");
    return text_of(all);
  }
  void export_patch(const std::string& id, const std::string& path) const {
    write_new_patch(path, store().snapshot().patch(full({id})[0]));
  }
  std::int64_t version() const { return static_cast<std::int64_t>(store().snapshot().version()); }
  std::string digest() const { return store().snapshot().digest(); }
  void verify() const { store().snapshot().verify(); }
  std::vector<std::int64_t> free_slots() const { return store().snapshot().free_slots(); }
  std::optional<std::string> writer_of(std::int64_t slot) const {
    const Snapshot now = store().snapshot();
    TORCH_CHECK_INDEX(slot >= 0 && slot < now.rows(), "writer_of: expected a slot in [0, ",
                      now.rows(), "), got ", slot);
    return now.writer_of(slot);
  }

 private:
  void expect_open() const {
    if (!store_) throw Error(pool_ + ": expected an open store, it was closed");
  }
  const Store& store() const {
    expect_open();
    return *store_;
  }
  Store& store() {
    expect_open();
    return *store_;
  }

  // Each by its beginning; one that begins no id is left for the store to refuse.
  Ids full(const Ids& beginnings) const {
    const Snapshot now = store().snapshot();
    Ids ids;
    for (const std::string& begin : beginnings) {
      Ids found;
      bool is_whole = false;
      for (const auto& list : {now.patches(), now.undone()}) {
        for (const PatchInfo& patch : list) {
          is_whole = is_whole || patch.id == begin;
          if (!begin.empty() && patch.id.starts_with(begin)) found.push_back(patch.id);
        }
      }
      if (found.size() > 1 && !is_whole) {
        throw Error("patch " + begin + ": expected the beginning of one id, got that of " +
                    found[0] + " and " + found[1]);
      }
      ids.push_back(is_whole || found.empty() ? begin : found.front());
    }
    return ids;
  }

  std::string pool_;
  std::optional<Store> store_;
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(memlayers, m) {
  m.class_<PyStore>("Store")
      .def(torch::init<const std::string&>())
      .def("pool", &PyStore::pool)
      .def("close", &PyStore::close)
      .def("apply", &PyStore::apply)
      .def("rollback", &PyStore::rollback)
      .def("reapply", &PyStore::reapply)
      .def("keep", &PyStore::keep)
      .def("compact", &PyStore::compact)
      .def("patches", &PyStore::patches)
      .def("export_patch", &PyStore::export_patch)
      .def("version", &PyStore::version)
      .def("digest", &PyStore::digest)
      .def("verify", &PyStore::verify)
      .def("free_slots", &PyStore::free_slots)
      .def("writer_of", &PyStore::writer_of);
}

}  // namespace memlayers::python
