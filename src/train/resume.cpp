// SPDX-License-Identifier: Apache-2.0
#include "train/resume.h"

#include <map>
#include <sstream>

#include "io/folder.h"
#include "io/model_source.h"
#include "io/run_folder.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::train {
namespace {

// "section.key" -> value, as to_toml() writes them: one a line.
std::map<std::string, std::string> fields(const TrainConfig& config) {
  std::map<std::string, std::string> found;
  std::istringstream lines(to_toml(config));
  std::string line, section;
  while (std::getline(lines, line)) {
    if (line.starts_with('[') && line.ends_with(']')) {
      section = line.substr(1, line.size() - 2) + ".";
    } else if (const std::size_t equals = line.find(" = "); equals != std::string::npos) {
      found[section + line.substr(0, equals)] = line.substr(equals + 3);
    }
  }
  return found;
}

std::string checkpoint_folder(io::FileSystem& files, const std::string& path) {
  if (!files.is_folder(path)) {
    throw Error("train.resume: " + path +
                ": no such folder; wanted a checkpoint, \"auto\" or \"never\"");
  }
  if (io::is_complete(files, path) && files.exists(io::join(path, "trainer.json"))) return path;
  const auto found = io::find_checkpoints(files, path);
  if (found.empty()) {
    throw Error("train.resume: " + path +
                ": neither a complete checkpoint (MANIFEST.json and trainer.json) nor a run folder "
                "that holds one");
  }
  return found.back().path;
}

// Of those `found` in the run's folder, or the one that train.resume names; none to begin anew.
std::optional<std::string> resume_folder(io::FileSystem& files, const TrainConfig& config,
                                         const std::vector<io::FoundCheckpoint>& found) {
  if (config.train.resume == "never") {
    const auto complete = io::find_checkpoints(files, config.out);
    if (!complete.empty()) {
      throw Error("train.resume: \"never\", but " + complete.back().path +
                  " is a complete checkpoint, which is not overwritten; choose another out");
    }
    return std::nullopt;
  }
  if (config.train.resume != "auto") return checkpoint_folder(files, config.train.resume);
  if (found.empty()) return std::nullopt;
  return found.back().path;
}

// "; the one before, runs/x/step-40, is complete: --resume runs/x/step-40", or nothing.
std::string the_one_before(io::FileSystem& files, const std::string& checkpoint) {
  auto found = io::find_checkpoints(files, io::parent(checkpoint));
  const auto name = [](const std::string& path) { return path.substr(path.rfind('/') + 1); };
  const auto own = io::find_closed_checkpoints(files, io::parent(checkpoint));
  std::int64_t step = 0;
  for (const auto& one : own) {
    if (name(one.path) == name(checkpoint)) step = one.step;
  }
  while (!found.empty() &&
         (found.back().step >= step || !damage_of(files, found.back().path, nullptr).empty())) {
    found.pop_back();
  }
  if (found.empty()) return "";
  const std::string& path = found.back().path;
  return "; the one before, " + path + ", is complete: --resume " + path;
}

}  // namespace

void reading_checkpoint(io::FileSystem& files, const std::string& checkpoint,
                        const std::function<void()>& read) {
  try {
    read();
  } catch (const PeerLost&) {
    throw;
  } catch (const Error& error) {
    throw Error(error.what() + the_one_before(files, checkpoint));
  }
}

std::optional<ResumePoint> find_resume_point(io::FileSystem& files, const TrainConfig& config,
                                             const Processes* processes) {
  const auto together = [&](const std::function<void()>& work) {
    processes == nullptr ? work() : processes->together(work);
  };
  std::vector<io::FoundCheckpoint> found;
  std::optional<std::string> folder;
  together([&] {
    found = io::find_closed_checkpoints(files, config.out);
    folder = resume_folder(files, config, found);
  });
  if (!folder) return std::nullopt;
  ResumePoint point{.folder = *folder, .state = {}, .damaged = {}};
  const std::string damage = damage_of(files, point.folder, processes);
  together([&] {
    reading_checkpoint(files, point.folder, [&] {
      if (!damage.empty()) throw Error(damage);
      point.state = load_run_state(files, point.folder);
    });
  });
  for (const io::FoundCheckpoint& later : found) {
    if (later.step <= point.state.step) continue;
    if (!damage_of(files, later.path, processes).empty()) {
      point.damaged.push_back(later.path);
      continue;
    }
    together([&] {
      throw Error("train.resume: " + point.folder + " stands at step " +
                  std::to_string(point.state.step) + ", but " + later.path +
                  " is a later complete checkpoint, which is not overwritten; choose another out");
    });
  }
  return point;
}

bool attends_across_documents(const std::string& checkpoint) {
  return load_train_config(io::join(checkpoint, "training.toml"), {})
      .data.across_documents.value_or(true);
}

void check_same_model(io::FileSystem& files, const TrainConfig& config,
                      const std::string& checkpoint) {
  const auto before = fields(load_train_config(io::join(checkpoint, "training.toml"), {}));
  const auto now = fields(config);
  const auto value = [](const std::map<std::string, std::string>& in, const std::string& key) {
    const auto at = in.find(key);
    return at == in.end() ? std::string("absent") : io::shown(at->second);
  };
  std::map<std::string, std::string> keys = before;
  keys.insert(now.begin(), now.end());
  for (const auto& [key, ignored] : keys) {
    if (!key.starts_with("model.") && !key.starts_with("memory.")) continue;
    if (value(before, key) != value(now, key)) {
      const bool has_grown =
          key == "memory.n_keys" && io::read_model(files, checkpoint).memory->open_keys;
      if (has_grown) {
        throw Error(key + ": " + value(now, key) + ", but the checkpoint " + checkpoint +
                    " has grown to " + value(before, key) + ": set memory.n_keys to that");
      }
      throw Error(key + ": " + value(now, key) + ", but the checkpoint " + checkpoint + " has " +
                  value(before, key) +
                  "; a run resumes with the model it began with (start another with init)");
    }
  }
}

}  // namespace memlayers::train
