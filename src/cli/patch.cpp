// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/patches.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "io/model_source.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "memlayers/store.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

using Ids = std::vector<std::string>;

// The store knows the model's sub-keys, to refuse patches of others.
Store open_store(const PatchArguments& arguments) {
  const std::string pool = pool_of(arguments);
  StoreOptions options;
  options.sub_keys = sub_key_grid(io::read_model(io::posix(), io::parent(pool)));
  return Store::open(pool, options);
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
  print_warning(count_text(static_cast<std::int64_t>(conflicts.size()), what) +
                " written by another patch too; the last one wins:");
  constexpr std::size_t kMost = 10;
  for (std::size_t i = 0; i < std::min(kMost, conflicts.size()); ++i) {
    std::cerr << "  " << what << " " << place_of(conflicts[i]) << ": "
              << io::shown(conflicts[i].earlier) << ", then " << io::shown(conflicts[i].later)
              << '\n';
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
      conflicts.push_back({{"sub_key", place_json(conflict.place)},
                           {"earlier", conflict.earlier},
                           {"later", conflict.later}});
    }
    print_json({{"patch", id},
                {"done", done},
                {"was_there", committed.was_there},
                {"version", committed.version},
                {"conflicts", conflicts}});
    return;
  }
  std::cout << done << " " << io::shown(id) << (committed.was_there ? " (nothing to do)" : "")
            << ": pool version " << committed.version << '\n';
  warn(committed.conflicts, "slot", [](const Conflict& c) { return std::to_string(c.slot); });
  warn(committed.sub_key_conflicts, "sub-key",
       [](const SubKeyConflict& c) { return place_text(c.place); });
}

// Store::apply(); what it says of a patch names the file as well.
std::vector<Committed> apply_all(Store& store, const std::vector<Patch>& patches,
                                 const std::vector<std::string>& files) {
  try {
    return store.apply(patches);
  } catch (const Error& error) {
    const std::string message = error.what();
    for (std::size_t i = 0; i < patches.size(); ++i) {
      if (message.starts_with("patch " + io::shown(patches[i].id) + ":")) {
        throw Error(files[i] + ": " + message);
      }
    }
    throw;
  }
}

int apply(const PatchArguments& arguments) {
  work_without_readers();
  std::vector<Patch> patches;
  for (const std::string& file : arguments.patches) patches.push_back(read_patch(file));
  Store store = open_store(arguments);
  const std::vector<Committed> committed = apply_all(store, patches, arguments.patches);
  for (std::size_t i = 0; i < patches.size(); ++i) {
    tell(arguments, "applied", patches[i].id, committed[i]);
  }
  return 0;
}

// One of Store's edits by ids, of all or of none.
std::function<int(const PatchArguments&)> edit(
    const char* done, std::function<std::vector<Committed>(Store&, const Ids&)> act) {
  return [=](const PatchArguments& arguments) {
    work_without_readers();
    Store store = open_store(arguments);
    std::vector<std::string> ids;
    for (const std::string& name : arguments.patches) {
      ids.push_back(full_id(store.snapshot(), name));
    }
    const std::vector<Committed> committed = act(store, ids);
    for (std::size_t i = 0; i < ids.size(); ++i) tell(arguments, done, ids[i], committed[i]);
    return 0;
  };
}

int compact(const PatchArguments& arguments) {
  work_without_readers();
  Store store = open_store(arguments);
  const Committed committed = store.compact(arguments.part);
  if (arguments.is_json) {
    print_json({{"done", "compacted"},
                {"was_there", committed.was_there},
                {"version", committed.version}});
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
      print_json(json_of(patch, state));
      return;
    }
    const auto what = patch.notes.find("what");
    rows.push_back({io::shown(patch.id), state, std::to_string(patch.rows),
                    std::to_string(patch.erased), std::to_string(patch.sub_keys),
                    what == patch.notes.end() ? "" : io::shown(what->second)});
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

// Writes `patch` to the file asked for, which must not be there.
int write_out(const PatchArguments& arguments, const Patch& patch) {
  work_without_readers();
  check_is_new(arguments.out, "file");
  write_new_patch(arguments.out, patch);
  if (arguments.is_json) {
    print_json({{"patch", patch.id},
                {"file", arguments.out},
                {"rows", patch.slots.size()},
                {"erased", patch.erased.size()},
                {"sub_keys", patch.sub_keys.places.size()}});
  } else {
    std::cout << arguments.out << ": patch " << io::shown(patch.id) << ", "
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
           edit("rolled back", [](Store& store, const Ids& ids) { return store.rollback(ids); })},
          {"reapply", "apply patches again that were rolled back, on top", kIds, 1, 0, false,
           edit("applied again", [](Store& store, const Ids& ids) { return store.reapply(ids); })},
          {"keep", "never roll this patch, and those below it, back", kIds, 1, 1, false,
           edit("kept",
                [](Store& store, const Ids& ids) { return std::vector{store.keep(ids.front())}; })},
          {"compact", "fold kept patches into the base", nullptr, 0, 0, false, compact},
          {"list", "the patches of a model, the first applied first", nullptr, 0, 0, false, list},
          {"show", "what a patch writes", "a patch file, or an id in the model", 1, 1, false,
           show_patch},
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
                action.most == 0
                    ? patches->expected(action.least, CLI::detail::expected_max_vector_size)
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
