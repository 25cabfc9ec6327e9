// SPDX-License-Identifier: Apache-2.0
#include "train/run_state.h"

#include <nlohmann/json.hpp>

#include "memlayers/error.h"

namespace memlayers::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "memlayers.trainer";

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::optional<double> optional_number(const Json& json, const char* key) {
  const Json& value = json.at(key);
  return value.is_null() ? std::nullopt : std::optional<double>(value.get<double>());
}

// understand(json, path of the file), its format and version found good.
template <class Understand>
auto parsed(io::FileSystem& files, const std::string& checkpoint, const Understand& understand) {
  const std::string file = io::join(checkpoint, "trainer.json");
  const std::string text = io::read_text(files, file);
  try {
    const Json json = Json::parse(text);
    const Json& version = json.at("version");
    if (json.at("format") != kFormat || !version.is_number_integer() || version < 1 ||
        version > kStateVersion) {
      throw Error(file + ": expected format \"" + kFormat + "\" of version 1 or " +
                  std::to_string(kStateVersion) + ", got " + json.at("format").dump() +
                  " of version " + version.dump());
    }
    return understand(json, file);
  } catch (const nlohmann::json::exception& error) {
    throw Error(file + ": not the state of a training run: " + error.what());
  }
}

}  // namespace

std::string state_json(const RunState& state, const RunLayout& layout) {
  const Json json = {
      {"format", kFormat},
      {"version", kStateVersion},
      {"step", state.step},
      {"position", {{"epoch", state.position.epoch}, {"batch", state.position.batch}}},
      {"data", state.data},
      {"tokens", state.tokens},
      {"time_s", state.time_s},
      {"bad_steps", state.bad_steps},
      {"bad_in_a_row", state.bad_in_a_row},
      {"row_steps", state.row_steps},
      {"loss", optional_json(state.loss)},
      {"eval_loss", optional_json(state.eval_loss)},
      {"best_eval_loss", optional_json(state.best_eval_loss)},
      {"layout",
       {{"processes", layout.processes},
        {"groups", layout.groups},
        {"column_parts", layout.split.column_parts},
        {"row_parts", layout.split.row_parts},
        {"files", layout.files}}}};
  return json.dump(2) + "\n";
}

RunState load_run_state(io::FileSystem& files, const std::string& checkpoint) {
  return parsed(files, checkpoint, [](const Json& json, const std::string& file) {
    RunState state;
    state.step = json.at("step").get<std::int64_t>();
    state.position.epoch = json.at("position").at("epoch").get<std::int64_t>();
    state.position.batch = json.at("position").at("batch").get<std::int64_t>();
    state.data = json.at("data").get<std::string>();
    state.tokens = json.at("tokens").get<std::int64_t>();
    state.time_s = json.at("time_s").get<double>();
    state.bad_steps = json.at("bad_steps").get<std::int64_t>();
    state.bad_in_a_row = json.at("bad_in_a_row").get<std::int64_t>();
    state.row_steps = json.at("row_steps").get<std::int64_t>();
    state.loss = optional_number(json, "loss");
    state.eval_loss = optional_number(json, "eval_loss");
    state.best_eval_loss = optional_number(json, "best_eval_loss");
    if (state.step < 0 || state.position.epoch < 0 || state.position.batch < 0) {
      throw Error(file + ": step and position must not be negative");
    }
    return state;
  });
}

int load_state_version(io::FileSystem& files, const std::string& checkpoint) {
  return parsed(files, checkpoint,
                [](const Json& json, const std::string&) { return json.at("version").get<int>(); });
}

}  // namespace memlayers::train
