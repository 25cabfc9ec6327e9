// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "io/model_config.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/ops.h"
#include "memlayers/store.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

struct PatchArguments {
  std::string model, out;
  std::vector<std::string> patches;  // files, or ids in the model
  double part = 0.25;
  std::int64_t rows = 10;
  bool is_json = false;
};

std::string pool_of(const PatchArguments& arguments) {
  const std::string folder = resolve_model_folder(arguments.model);
  const std::string pool = io::join(folder, "pool");
  if (!io::posix().is_folder(pool)) {
    throw Error(folder + ": expected a model with a pool, found none");
  }
  return pool;
}

// The store knows the model's sub-keys, to refuse patches of others.
Store open_store(const PatchArguments& arguments) {
  const std::string pool = pool_of(arguments);
  StoreOptions options;
  options.sub_keys =
      sub_key_grid(io::read_model_config(io::posix(), io::join(io::parent(pool), "config.json")));
  return Store::open(pool, options);
}

// The id that begins so; one that is no beginning of any is left as it is, for the store to refuse.
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

// A patch file, or one of the store's by its id.
Patch find_patch(const Snapshot& pool, const std::string& name) {
  return io::posix().exists(name) ? read_patch(name) : pool.patch(full_id(pool, name));
}

std::string count_text(std::int64_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

Json json_of(const SubKeyPlace& place) {
  return {
      {"layer", place.layer}, {"head", place.head}, {"half", place.half}, {"index", place.index}};
}

Json json_of(const std::vector<SubKeyPlace>& places) {
  Json json = Json::array();
  for (const SubKeyPlace& place : places) json.push_back(json_of(place));
  return json;
}

// layer.head.half.number
std::string text_of(const SubKeyPlace& place) {
  return std::to_string(place.layer) + "." + std::to_string(place.head) + "." +
         std::to_string(place.half) + "." + std::to_string(place.index);
}

// "3 rows of 64 float32, 1 erased, 2 sub-keys"
std::string size_text(const std::string& rows, std::int64_t erased, std::int64_t sub_keys) {
  return rows + (erased == 0 ? "" : ", " + std::to_string(erased) + " erased") +
         (sub_keys == 0 ? "" : ", " + count_text(sub_keys, "sub-key"));
}

Json json_of(const PatchInfo& patch, const char* state) {
  return {{"id", patch.id},
          {"state", state},
          {"rows", patch.rows},
          {"erased", patch.erased},
          {"sub_keys", patch.sub_keys},
          {"notes", patch.notes}};
}

template <class Conflicts, class TextOf>
void warn(const Conflicts& conflicts, const std::string& what, const TextOf& place_of) {
  if (conflicts.empty()) return;
  std::cerr << "memlayers: warning: "
            << count_text(static_cast<std::int64_t>(conflicts.size()), what)
            << " written by another patch too; the last one wins:\n";
  constexpr std::size_t kMost = 10;
  for (std::size_t i = 0; i < std::min(kMost, conflicts.size()); ++i) {
    std::cerr << "  " << what << " " << place_of(conflicts[i]) << ": " << conflicts[i].earlier
              << ", then " << conflicts[i].later << '\n';
  }
  if (conflicts.size() > kMost) std::cerr << "  ...\n";
}

void tell(const PatchArguments& arguments, const char* done, const std::string& id,
          const Committed& committed) {
  if (arguments.is_json) {
    Json conflicts = Json::array();
    for (const Conflict& conflict : committed.conflicts) {
      conflicts.push_back(
          {{"slot", conflict.slot}, {"earlier", conflict.earlier}, {"later", conflict.later}});
    }
    for (const SubKeyConflict& conflict : committed.sub_key_conflicts) {
      conflicts.push_back({{"sub_key", json_of(conflict.place)},
                           {"earlier", conflict.earlier},
                           {"later", conflict.later}});
    }
    std::cout << Json{{"patch", id},
                      {"done", done},
                      {"was_there", committed.was_there},
                      {"version", committed.version},
                      {"conflicts", conflicts}}
                     .dump()
              << '\n';
    return;
  }
  std::cout << done << " " << id << (committed.was_there ? " (nothing to do)" : "")
            << ": pool version " << committed.version << '\n';
  warn(committed.conflicts, "slot", [](const Conflict& c) { return std::to_string(c.slot); });
  warn(committed.sub_key_conflicts, "sub-key",
       [](const SubKeyConflict& c) { return text_of(c.place); });
}

int apply(const PatchArguments& arguments) {
  std::vector<Patch> patches;  // all are read before any is applied
  for (const std::string& file : arguments.patches) patches.push_back(read_patch(file));
  Store store = open_store(arguments);
  for (const Patch& patch : patches) tell(arguments, "applied", patch.id, store.apply(patch));
  return 0;
}

// One of Store's edits by id.
std::function<int(const PatchArguments&)> edit(const char* done,
                                               Committed (Store::*act)(const std::string&)) {
  return [=](const PatchArguments& arguments) {
    Store store = open_store(arguments);
    for (const std::string& name : arguments.patches) {
      const std::string id = full_id(store.snapshot(), name);
      tell(arguments, done, id, (store.*act)(id));
    }
    return 0;
  };
}

int compact(const PatchArguments& arguments) {
  Store store = open_store(arguments);
  const Committed committed = store.compact(arguments.part);
  if (arguments.is_json) {
    std::cout << Json{{"done", "compacted"},
                      {"was_there", committed.was_there},
                      {"version", committed.version}}
                     .dump()
              << '\n';
  } else {
    std::cout << (committed.was_there ? "nothing to compact" : "compacted") << ": pool version "
              << committed.version << '\n';
  }
  return 0;
}

std::string patched_sub_keys(const Snapshot& pool) {
  const auto keys = pool.sub_keys();
  if (keys == nullptr) return "";
  return ", " + count_text(static_cast<std::int64_t>(keys->places.size()), "sub-key");
}

int list(const PatchArguments& arguments) {
  const Snapshot pool = StoreReader::open(pool_of(arguments)).snapshot();
  std::vector<std::vector<std::string>> rows{
      {"patch", "state", "rows", "erased", "sub-keys", "what"}};
  const auto add = [&](const PatchInfo& patch, const char* state) {
    if (arguments.is_json) {
      std::cout << json_of(patch, state).dump() << '\n';
      return;
    }
    const auto what = patch.notes.find("what");
    rows.push_back({patch.id, state, std::to_string(patch.rows), std::to_string(patch.erased),
                    std::to_string(patch.sub_keys), what == patch.notes.end() ? "" : what->second});
  };
  for (const PatchInfo& patch : pool.patches()) add(patch, patch.is_kept ? "kept" : "applied");
  for (const PatchInfo& patch : pool.undone()) add(patch, "rolled back");
  if (!arguments.is_json) {
    if (rows.size() > 1) std::cout << table(rows);
    std::cout << "pool version " << pool.version() << ", "
              << count_text(pool.overridden_rows(), "row") << " of " << pool.rows() << " patched"
              << patched_sub_keys(pool) << '\n';
  }
  return 0;
}

at::Tensor as_numbers(std::span<const std::byte> rows, RowType type, std::int64_t width) {
  const auto bytes = static_cast<std::int64_t>(rows.size());
  // Only read; from_blob has no const twin.
  auto* data = const_cast<std::byte*>(rows.data());
  if (is_quantized(type)) {
    const std::int64_t row_bytes = quantized_row_bytes(type, width);
    const at::Tensor stored = at::from_blob(data, {bytes / row_bytes, row_bytes}, at::kByte);
    return dequantize_rows(stored, type, width);
  }
  const at::ScalarType element = type == RowType::kFloat32 ? at::kFloat : at::kBFloat16;
  const auto size = static_cast<std::int64_t>(c10::elementSize(element)) * width;
  return at::from_blob(data, {bytes / size, width}, element).to(at::kFloat);
}

int show(const PatchArguments& arguments) {
  const Snapshot pool = StoreReader::open(pool_of(arguments)).snapshot();
  const Patch patch = find_patch(pool, arguments.patches.front());
  if (patch.pool != pool.pool_id() || patch.width != pool.width() ||
      patch.row_dtype != pool.row_dtype()) {
    throw Error("patch " + patch.id + ": expected one for pool " + pool.pool_id() +
                ", got one for pool " + patch.pool);
  }
  std::vector<std::byte> rows_now(patch.slots.size() * static_cast<std::size_t>(pool.row_bytes()));
  pool.read_rows(patch.slots, rows_now);
  const at::Tensor rows = as_numbers(patch.rows, patch.row_dtype, patch.width);
  const at::Tensor norm = rows.norm(2, 1);
  const at::Tensor change = (rows - as_numbers(rows_now, patch.row_dtype, patch.width)).norm(2, 1);
  Json slots = Json::array();
  for (std::size_t i = 0; i < patch.slots.size(); ++i) {
    const std::int64_t slot = patch.slots[i];
    const auto [row, column] = cell_of(slot);
    slots.push_back({{"slot", slot},
                     {"row_key", row},
                     {"column_key", column},
                     {"norm", norm[static_cast<std::int64_t>(i)].item<float>()},
                     {"from_pool", change[static_cast<std::int64_t>(i)].item<float>()},
                     {"writer", pool.writer_of(slot).value_or("")}});
  }
  Json sub_keys = Json::array();
  const auto width = static_cast<std::size_t>(patch.sub_keys.width);
  for (std::size_t i = 0; i < patch.sub_keys.places.size(); ++i) {
    const SubKeyPlace& place = patch.sub_keys.places[i];
    double sum = 0;
    for (const float x : std::span(patch.sub_keys.numbers).subspan(i * width, width)) {
      sum += double{x} * double{x};
    }
    Json one = json_of(place);
    one["norm"] = std::sqrt(sum);
    one["writer"] = pool.writer_of(place).value_or("");
    sub_keys.push_back(std::move(one));
  }
  Json json = {{"id", patch.id},       {"pool", patch.pool},
               {"width", patch.width}, {"row_dtype", row_type_name(patch.row_dtype)},
               {"notes", patch.notes}, {"rows", patch.slots.size()},
               {"slots", slots},       {"erased", patch.erased},
               {"sub_keys", sub_keys}};
  if (arguments.is_json) {
    std::cout << json.dump() << '\n';
    return 0;
  }
  std::cout << "patch " << patch.id << ": "
            << size_text(count_text(static_cast<std::int64_t>(patch.slots.size()), "row") + " of " +
                             std::to_string(patch.width) + " " + row_type_name(patch.row_dtype),
                         static_cast<std::int64_t>(patch.erased.size()),
                         static_cast<std::int64_t>(patch.sub_keys.places.size()))
            << '\n';
  for (const auto& [name, value] : patch.notes) std::cout << "  " << name << ": " << value << '\n';
  const auto writer_text = [&](const Json& one, const char* base) -> std::string {
    const std::string writer = one["writer"];
    return writer.empty() ? base : writer == patch.id ? "this patch" : writer;
  };
  std::vector<std::vector<std::string>> lines{
      {"slot", "cell", "norm", "from the pool's", "now written by"}};
  for (const Json& slot : slots) {
    if (static_cast<std::int64_t>(lines.size()) > arguments.rows) break;
    lines.push_back({slot["slot"].dump(), slot["row_key"].dump() + "," + slot["column_key"].dump(),
                     short_number(slot["norm"].get<double>()),
                     short_number(slot["from_pool"].get<double>()), writer_text(slot, "the base")});
  }
  if (!slots.empty()) std::cout << table(lines);
  lines = {{"sub-key of layer", "head", "half", "number", "norm", "now written by"}};
  for (const Json& key : sub_keys) {
    if (static_cast<std::int64_t>(lines.size()) > arguments.rows) break;
    lines.push_back({key["layer"].dump(), key["head"].dump(), key["half"].dump(),
                     key["index"].dump(), short_number(key["norm"].get<double>()),
                     writer_text(key, "the model")});
  }
  if (!sub_keys.empty()) std::cout << table(lines);
  const std::size_t most = std::max(slots.size(), sub_keys.size());
  if (static_cast<std::int64_t>(most) > arguments.rows) {
    std::cout << "... (--rows " << most << " shows all)\n";
  }
  return 0;
}

int show_diff(const PatchArguments& arguments) {
  const Snapshot pool = StoreReader::open(pool_of(arguments)).snapshot();
  const Patch first = find_patch(pool, arguments.patches[0]),
              second = find_patch(pool, arguments.patches[1]);
  const PatchDiff found = diff(first, second);
  if (arguments.is_json) {
    std::cout << Json{{"first", first.id},
                      {"second", second.id},
                      {"only_first", found.only_first},
                      {"only_second", found.only_second},
                      {"same", found.same},
                      {"different", found.different},
                      {"sub_keys",
                       {{"only_first", json_of(found.sub_keys.only_first)},
                        {"only_second", json_of(found.sub_keys.only_second)},
                        {"same", json_of(found.sub_keys.same)},
                        {"different", json_of(found.sub_keys.different)}}}}
                     .dump()
              << '\n';
    return 0;
  }
  const auto line = [&](const std::string& what, const auto& places, const auto& text) {
    std::string some;
    for (std::size_t i = 0; i < places.size() && static_cast<std::int64_t>(i) < arguments.rows;
         ++i) {
      some += (i == 0 ? "" : " ") + text(places[i]);
    }
    if (static_cast<std::int64_t>(places.size()) > arguments.rows) some += " ...";
    return std::vector<std::string>{what, std::to_string(places.size()), some};
  };
  const auto print = [&](const char* places, const char* one, const auto& of, const auto& text) {
    std::cout << table({{places, "number", "which"},
                        line("only in " + first.id, of.only_first, text),
                        line("only in " + second.id, of.only_second, text),
                        line(std::string("in both, same ") + one, of.same, text),
                        line(std::string("in both, another ") + one, of.different, text)});
  };
  print("slots", "row", found, [](std::int64_t slot) { return std::to_string(slot); });
  if (first.sub_keys.places.empty() && second.sub_keys.places.empty()) return 0;
  print("sub-keys (layer.head.half.number)", "numbers", found.sub_keys, text_of);
  return 0;
}

// Writes `patch` to the file asked for, which must not be there.
int write_out(const PatchArguments& arguments, const Patch& patch) {
  check_is_new(arguments.out, "file");
  write_patch(arguments.out, patch);
  if (arguments.is_json) {
    std::cout << Json{{"patch", patch.id},
                      {"file", arguments.out},
                      {"rows", patch.slots.size()},
                      {"erased", patch.erased.size()},
                      {"sub_keys", patch.sub_keys.places.size()}}
                     .dump()
              << '\n';
  } else {
    std::cout << arguments.out << ": patch " << patch.id << ", "
              << size_text(count_text(static_cast<std::int64_t>(patch.slots.size()), "row"), 0,
                           static_cast<std::int64_t>(patch.sub_keys.places.size()))
              << '\n';
  }
  return 0;
}

int merge_patches(const PatchArguments& arguments) {
  const Snapshot pool = StoreReader::open(pool_of(arguments)).snapshot();
  std::vector<Patch> patches;
  for (const std::string& name : arguments.patches) patches.push_back(find_patch(pool, name));
  return write_out(arguments, merge(patches));
}

int export_patch(const PatchArguments& arguments) {
  const Snapshot pool = StoreReader::open(pool_of(arguments)).snapshot();
  return write_out(arguments, find_patch(pool, arguments.patches.front()));
}

struct Action {
  const char *name, *summary,
      *patches;     // patches: what the arguments behind the model are; or null
  int least, most;  // how many of them; most 0: any number
  bool has_out;
  std::function<int(const PatchArguments&)> run;
};

std::vector<Action> actions() {
  constexpr const char* kIds = "ids in the model, or their beginnings";
  constexpr const char* kEither = "patch files, or ids in the model";
  return {{"apply", "apply patch files, one after the other", "patch files", 1, 0, false, apply},
          {"rollback", "take patches back, wherever in the stack", kIds, 1, 0, false,
           edit("rolled back", &Store::rollback)},
          {"reapply", "apply patches again that were rolled back, on top", kIds, 1, 0, false,
           edit("applied again", &Store::reapply)},
          {"keep", "never roll this patch, and those below it, back", kIds, 1, 1, false,
           edit("kept", &Store::keep)},
          {"compact", "fold kept patches into the base", nullptr, 0, 0, false, compact},
          {"list", "the patches of a model, the first applied first", nullptr, 0, 0, false, list},
          {"show", "what a patch writes", "a patch file, or an id in the model", 1, 1, false, show},
          {"diff", "which slots and sub-keys two patches share", kEither, 2, 2, false, show_diff},
          {"merge", "write one patch that does what these do, the last one winning", kEither, 1, 0,
           true, merge_patches},
          {"export", "write a patch of the model to a file", "an id in the model", 1, 1, true,
           export_patch}};
}

}  // namespace

Command patch_command() {
  return {"patch", "Change a model's pool by patches, and take them back",
          "memlayers patch apply runs/demo fact.safetensors\n"
          "  memlayers patch list runs/demo\n"
          "  memlayers patch rollback runs/demo 3f2a",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<PatchArguments>();
            auto chosen = std::make_shared<std::function<int(const PatchArguments&)>>();
            app.require_subcommand(1);
            for (const Action& action : actions()) {
              CLI::App* verb = app.add_subcommand(action.name, action.summary);
              verb->add_option("model", a->model, "model folder, or a run's folder")->required();
              if (action.patches != nullptr) {
                auto* patches = verb->add_option("patches", a->patches, action.patches)->required();
                action.most == 0 ? patches->expected(action.least, 1 << 20)
                                 : patches->expected(action.least, action.most);
              }
              if (action.has_out) verb->add_option("-o,--out", a->out, "the new file")->required();
              if (std::string(action.name) == "compact") {
                verb->add_option("--part", a->part,
                                 "write a chunk anew where more than this part of it is patched")
                    ->check(CLI::Range(0.0, 1.0))
                    ->capture_default_str();
              }
              if (std::string(action.name) == "show" || std::string(action.name) == "diff") {
                verb->add_option("--rows", a->rows, "slots to print, at most")
                    ->check(CLI::NonNegativeNumber)
                    ->capture_default_str();
              }
              verb->add_flag("--json", a->is_json, "JSON objects on standard output, one a line");
              verb->callback([chosen, run = action.run] { *chosen = run; });
            }
            return [a, chosen] { return (*chosen)(*a); };
          }};
}

}  // namespace memlayers::cli
