// SPDX-License-Identifier: Apache-2.0
#include "train/run_state.h"

#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/json_field.h"

namespace memlayers::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "memlayers.trainer";

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::optional<double> optional_number(const io::JsonField& state, const char* key) {
  const auto value = state.find(key);
  return value ? std::optional(value->number()) : std::nullopt;
}

// understand(what the file says), its format and version found good.
template <class Understand>
auto parsed(io::FileSystem& files, const std::string& checkpoint, const Understand& understand) {
  const std::string file = io::join(checkpoint, "trainer.json");
  const nlohmann::json json = io::parse_json(io::read_text(files, file), file);
  const io::JsonField state(json, file);
  const io::JsonField format = state.at("format");
  if (format.string() != kFormat) format.fail("\"" + std::string(kFormat) + "\"");
  state.at("version").integer(1, kStateVersion);
  return understand(state);
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
  return parsed(files, checkpoint, [](const io::JsonField& stored) {
    RunState state;
    state.step = stored.at("step").count();
    state.position.epoch = stored.at("position").at("epoch").count();
    state.position.batch = stored.at("position").at("batch").count();
    state.data = stored.at("data").string();
    state.tokens = stored.at("tokens").count();
    const io::JsonField time = stored.at("time_s");
    state.time_s = time.number();
    if (state.time_s < 0) time.fail("seconds >= 0");
    state.bad_steps = stored.at("bad_steps").count();
    state.bad_in_a_row = stored.at("bad_in_a_row").count();
    state.row_steps = stored.at("row_steps").count();
    state.loss = optional_number(stored, "loss");
    state.eval_loss = optional_number(stored, "eval_loss");
    state.best_eval_loss = optional_number(stored, "best_eval_loss");
    return state;
  });
}

int load_state_version(io::FileSystem& files, const std::string& checkpoint) {
  return parsed(files, checkpoint, [](const io::JsonField& stored) {
    return static_cast<int>(stored.at("version").integer(1, kStateVersion));
  });
}

}  // namespace memlayers::train
