// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "io/finite.h"
#include "io/folder.h"
#include "io/json.h"
#include "io/json_field.h"
#include "io/model_config.h"
#include "io/model_source.h"
#include "io/number_text.h"
#include "io/safetensors.h"
#include "io/shown.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "memlayers/store.h"
#include "nn/model_folder.h"
#include "train/verify.h"

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

// What trainer.json says of the processes that wrote it.
Json layout_of(const io::JsonField& stored) {
  Json layout = Json::object();
  for (const char* name : {"processes", "groups", "column_parts", "row_parts"}) {
    if (const auto count = stored.find(name)) layout[name] = count->count();
  }
  if (const auto files = stored.find("files")) {
    layout["files"] = Json::object();
    for (const auto& [name, rank] : files->members()) layout["files"][name] = rank.count();
  }
  return layout;
}

// "4 processes in 2 groups, each pool in 2 parts of columns, 1 of rows"
std::string describe_layout(const Json& layout) {
  const auto number = [&](const char* key) { return layout.value(key, std::int64_t{0}); };
  const auto counted = [](std::int64_t count, const std::string& noun, const char* plural) {
    return std::to_string(count) + " " + noun + (count == 1 ? "" : plural);
  };
  return counted(number("processes"), "process", "es") + " in " +
         counted(number("groups"), "group", "s") + ", the pool in " +
         counted(number("column_parts"), "part", "s") + " of columns, " +
         std::to_string(number("row_parts")) + " of rows";
}

// 9.999999747378752e-06, which is the float 1e-05 to the bit, says no more than that to a reader.
std::string short_text(double value) {
  const auto narrow = static_cast<float>(value);
  return narrow == value ? io::number_text(narrow) : io::number_text(value);
}

void verify_weights(const io::ModelSource& source) {
  constexpr std::int64_t kAtOnce = 1 << 20;
  std::vector<std::byte> buffer;
  for (const auto& [name, weight] : source.weights()) {
    std::int64_t count = 1;
    for (const std::int64_t extent : weight.shape) count *= extent;
    for (std::int64_t first = 0; first < count; first += kAtOnce) {
      const std::int64_t some = std::min(kAtOnce, count - first);
      buffer.resize(static_cast<std::size_t>(some * io::element_bytes(weight.type)));
      source.read(name, first, buffer);
      if (io::all_finite(buffer, weight.type)) continue;
      throw Error(source.path() + ": tensor " + io::quote(name) +
                  ": expected finite weights, got NaN or infinity");
    }
  }
}

void print(const Json& json, bool wants_tensors) {
  const auto text = [](const Json& value) {
    if (value.is_number_float()) return short_text(value.get<double>());
    return io::shown(value.is_string() ? value.get<std::string>() : value.dump());
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
  if (json.contains("verified")) add("checksums", "hold; all numbers are finite");
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
  const auto source = io::open_model_source(fs, folder);
  const ModelConfig& config = source->config();
  Json json = {{"folder", folder}};
  const std::string trainer = io::join(folder, "trainer.json");
  if (fs.exists(trainer)) {
    const nlohmann::json state = io::parse_json(io::read_text(fs, trainer), trainer);
    const io::JsonField fields(state, trainer);
    if (const auto step = fields.find("step")) json["step"] = step->count();
    if (const auto layout = fields.find("layout")) json["layout"] = layout_of(*layout);
  }
  json["config"] = Json::parse(io::model_config_json(config));

  std::int64_t dense = 0, memory = 0;
  Json tensors = Json::array();
  for (const auto& [name, weight] : source->weights()) {
    std::int64_t count = 1;
    for (std::int64_t extent : weight.shape) count *= extent;
    (name.find(".memory.") == std::string::npos ? dense : memory) += count;
    tensors.push_back({{"name", name},
                       {"dtype", std::string(io::element_name(weight.type))},
                       {"shape", weight.shape}});
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
    verify_weights(*source);
    train::verify_run_files(fs, folder);
    json["verified"] = true;
  }
  if (arguments.is_json) {
    print_json(json);
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
            add_model(app, a->model);
            app.add_flag("--digest", a->wants_digest, "digest of the pool's logical content");
            app.add_flag(
                "--verify", a->wants_verify,
                "read everything again; check every checksum, and that numbers are finite");
            app.add_flag("--tensors", a->wants_tensors, "list the tensors of model.safetensors");
            add_json(app, a->is_json);
            return [a] { return inspect(*a); };
          }};
}

}  // namespace memlayers::cli
