// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "nn/packed_weights.h"

namespace memlayers::cli {
namespace {

struct QuantizeArguments {
  std::string model, out;
  std::optional<std::string> rows, weights;  // neither: rows in 8 bits
  int threads = 0;
  bool is_json = false;
};

RowType type_of(const std::string& name) {
  return name == "int8" ? RowType::kInt8 : RowType::kInt4;
}

std::int64_t dense_bytes(const Llama& model) {
  std::int64_t bytes = nn::packed_bytes(model);
  for (const auto& [name, weight] : model->dense_parameters()) {
    bytes += static_cast<std::int64_t>(weight.nbytes());
  }
  return bytes;
}

struct Change {
  const char* what;  // "rows" or "weights"
  std::string type;
  std::int64_t before, now;  // bytes
};

Change quantize_rows(const std::string& source, Llama& model, const std::string& type) {
  if (model->pool().is_empty()) {
    throw Error(source + ": expected a model with memory layers, got one without a pool");
  }
  const RowType before = model->pool()->options().row_dtype;
  if (is_quantized(before)) {
    throw Error(source + ": expected rows of type float32 or bfloat16, got " +
                row_type_name(before));
  }
  const auto bytes = [&] { return static_cast<std::int64_t>(model->pool()->values.nbytes()); };
  const std::int64_t were = bytes();
  model->quantize_pool(type_of(type));
  return {"rows", type, were, bytes()};
}

Change quantize_weights(const std::string& source, Llama& model, const std::string& type) {
  if (model->config().weights) {
    throw Error(source + ": expected weights of type float32 or bfloat16, got " +
                row_type_name(*model->config().weights));
  }
  const std::int64_t were = dense_bytes(model);
  model->quantize_weights(type_of(type));
  return {"weights", type, were, dense_bytes(model)};
}

int quantize(const QuantizeArguments& arguments) {
  work_without_readers();
  set_threads(arguments.threads);
  check_is_new(arguments.out, "folder");
  const std::string source = resolve_model_folder(arguments.model);
  Llama model = load_model(source);
  std::vector<Change> changes;
  if (arguments.rows || !arguments.weights) {
    changes.push_back(quantize_rows(source, model, arguments.rows.value_or("int8")));
  }
  if (arguments.weights) changes.push_back(quantize_weights(source, model, *arguments.weights));
  write_new_model(arguments.out, model, source);

  if (arguments.is_json) {
    nlohmann::ordered_json line{{"model", arguments.out}};
    for (const Change& change : changes) {
      const std::string bytes = change.what == std::string("rows") ? "pool_bytes" : "weight_bytes";
      line[change.what] = change.type;
      line[bytes + "_before"] = change.before;
      line[bytes] = change.now;
    }
    print_json(line);
    return 0;
  }
  for (const Change& change : changes) {
    std::cout << arguments.out << ": " << change.what << " of type " << change.type << ", "
              << short_bytes(static_cast<double>(change.now)) << " (was "
              << short_bytes(static_cast<double>(change.before)) << ")\n";
  }
  return 0;
}

}  // namespace

Command quantize_command() {
  return {"quantize", "Store a model's pool or its weights in 8 or 4 bits, for reading",
          "memlayers quantize runs/demo --rows int8 -o runs/demo-int8\n"
          "  memlayers quantize SmolLM2-135M-Instruct --weights int8 -o smol-int8",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<QuantizeArguments>();
            add_model(app, a->model);
            app.add_option("-o,--out", a->out, "the new model folder")->required();
            app.add_option("--rows", a->rows,
                           "the pool's: int8: a scale a row; int4: a scale for 32 columns; alone, "
                           "int8 is taken")
                ->check(CLI::IsMember({"int8", "int4"}));
            app.add_option("--weights", a->weights,
                           "matrices of attention and feed-forward blocks: int8 or int4, a scale "
                           "for 32 columns")
                ->check(CLI::IsMember({"int8", "int4"}));
            add_threads(app, a->threads);
            add_json(app, a->is_json);
            return [a] { return quantize(*a); };
          }};
}

}  // namespace memlayers::cli
