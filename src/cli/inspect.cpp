// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/terminal.h"
#include "io/folder.h"
#include "io/model_config.h"
#include "io/safetensors.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "memlayers/store.h"
#include "nn/model_folder.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectArguments {
  std::string model;
  bool is_json = false, wants_digest = false, wants_verify = false, wants_tensors = false;
};

Json describe_pool(const std::string& folder, const Snapshot& pool, bool wants_digest) {
  const auto sub_keys = pool.sub_keys();
  Json json = {{"folder", folder},
               {"id", pool.pool_id()},
               {"slots", pool.rows()},
               {"width", pool.width()},
               {"row_dtype", row_type_name(pool.row_dtype())},
               {"chunks", pool.num_chunks()},
               {"bytes", pool.rows() * pool.row_bytes()},
               {"version", pool.version()},
               {"patches", pool.patches().size()},
               {"patched_rows", pool.overridden_rows()},
               {"patched_sub_keys", sub_keys == nullptr ? 0 : sub_keys->places.size()},
               {"free_slots", pool.free_slots().size()}};
  if (wants_digest) json["digest"] = pool.digest();
  return json;
}

Json describe_flops(const ModelConfig& config) {
  const Flops flops = count_flops(config, config.context);
  return {{"context", config.context},
          {"attention", flops.attention},
          {"feed_forward", flops.feed_forward},
          {"memory", flops.memory},
          {"logits", flops.logits},
          {"total", flops.total()}};
}

// "4 processes in 2 groups, each pool in 2 parts of columns, 1 of rows"
std::string describe_layout(const Json& layout) {
  const auto number = [&](const char* key) {
    const Json value = layout.value(key, Json());
    return value.is_number_integer() ? value.get<std::int64_t>() : 0;
  };
  const auto counted = [](std::int64_t count, const std::string& noun, const char* plural) {
    return std::to_string(count) + " " + noun + (count == 1 ? "" : plural);
  };
  return counted(number("processes"), "process", "es") + " in " +
         counted(number("groups"), "group", "s") + ", the pool in " +
         counted(number("column_parts"), "part", "s") + " of columns, " +
         std::to_string(number("row_parts")) + " of rows";
}

void print(const Json& json, bool wants_tensors) {
  const auto text = [](const Json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const std::string& name, const std::string& value) {
    rows.push_back({name, value});
  };
  add("folder", text(json["folder"]));
  if (json.contains("step")) add("training step", text(json["step"]));
  if (json.contains("layout")) add("written by", describe_layout(json["layout"]));
  for (const auto& [name, value] : json["config"].items()) {
    if (!value.is_object()) add(name, text(value));
  }
  if (json["config"].contains("memlayers")) {
    for (const auto& [name, value] : json["config"]["memlayers"]["memory"].items()) {
      add("memory." + name, text(value));
    }
  }
  add("parameters, dense", short_count(json["parameters"]["dense"].get<double>()));
  add("parameters, memory layers", short_count(json["parameters"]["memory"].get<double>()));
  add("parameters, pool", short_count(json["parameters"]["pool"].get<double>()));
  add("FLOPs per token, forward", short_count(json["flops_per_token"]["total"].get<double>()));
  if (json.contains("pool")) {
    for (const auto& [name, value] : json["pool"].items()) add("pool " + name, text(value));
  }
  if (json.contains("verified")) add("checksums", "hold");
  for (const auto& row : rows) {
    std::cout << row[0] << std::string(row[0].size() < 28 ? 28 - row[0].size() : 1, ' ') << row[1]
              << '\n';
  }
  if (!wants_tensors) return;
  for (const Json& tensor : json["tensors"]) {
    std::cout << text(tensor["name"]) << "  " << text(tensor["dtype"]) << " "
              << tensor["shape"].dump() << '\n';
  }
}

int inspect(const InspectArguments& arguments) {
  io::FileSystem& fs = io::posix();
  const std::string folder = resolve_model_folder(arguments.model);
  const ModelConfig config = io::read_model_config(fs, io::join(folder, "config.json"));
  Json json = {{"folder", folder}};
  const std::string trainer = io::join(folder, "trainer.json");
  if (fs.exists(trainer)) {
    const Json state = Json::parse(io::read_text(fs, trainer), nullptr, /*allow_exceptions=*/false);
    if (state.is_object() && state.contains("step") && state["step"].is_number_integer()) {
      json["step"] = state["step"];
    }
    if (state.is_object() && state.contains("layout") && state["layout"].is_object()) {
      json["layout"] = state["layout"];
    }
  }
  json["config"] = Json::parse(io::model_config_json(config));

  const io::SafetensorsFolder weights = io::SafetensorsFolder::open(fs, folder);
  std::int64_t dense = 0, memory = 0;
  Json tensors = Json::array();
  for (const auto& [name, view] : weights.tensors()) {
    std::int64_t count = 1;
    for (std::int64_t extent : view.shape) count *= extent;
    (name.find(".memory.") == std::string::npos ? dense : memory) += count;
    tensors.push_back({{"name", name},
                       {"dtype", std::string(io::element_name(view.type))},
                       {"shape", view.shape}});
  }
  std::int64_t pooled = 0;
  if (!config.memory_layers().empty()) {
    const std::string pool_folder = io::join(folder, "pool");
    const Snapshot pool = open_pool(fs, config, pool_folder).snapshot();
    pooled = pool.rows() * pool.width();
    if (arguments.wants_verify) pool.verify();
    json["pool"] =
        describe_pool(pool_folder, pool, arguments.wants_digest || arguments.wants_verify);
  } else if (arguments.wants_digest) {
    throw Error(folder + ": expected a model with a pool, got one without memory layers");
  }
  json["parameters"] = {{"dense", dense}, {"memory", memory}, {"pool", pooled}};
  json["flops_per_token"] = describe_flops(config);
  if (arguments.wants_tensors) json["tensors"] = std::move(tensors);
  if (arguments.wants_verify) {
    if (fs.exists(io::join(folder, "MANIFEST.json"))) io::verify_folder(fs, folder);
    json["verified"] = true;
  }
  if (arguments.is_json) {
    std::cout << json.dump() << '\n';
  } else {
    print(json, arguments.wants_tensors);
  }
  return 0;
}

}  // namespace

Command inspect_command() {
  return {"inspect", "Show what a model folder holds, and check it",
          "memlayers inspect runs/demo\n  memlayers inspect runs/demo --digest --verify --json",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<InspectArguments>();
            app.add_option("model", a->model, "model folder, or a run's folder")->required();
            app.add_flag("--digest", a->wants_digest, "digest of the pool's logical content");
            app.add_flag("--verify", a->wants_verify,
                         "read everything again and check every checksum");
            app.add_flag("--tensors", a->wants_tensors, "list the tensors of model.safetensors");
            app.add_flag("--json", a->is_json, "one JSON object on standard output");
            return [a] { return inspect(*a); };
          }};
}

}  // namespace memlayers::cli
