// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/terminal.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"

namespace memlayers::cli {
namespace {

struct QuantizeArguments {
  std::string model, out, rows = "int8";
  int threads = 0;
  bool is_json = false;
};

int quantize(const QuantizeArguments& arguments) {
  set_threads(arguments.threads);
  check_is_new(arguments.out, "folder");
  const std::string source = resolve_model_folder(arguments.model);
  Llama model = load_model(source);
  if (model->pool().is_empty()) {
    throw Error(source + ": expected a model with memory layers, got one without a pool");
  }
  const RowType before = model->pool()->options().row_dtype;
  if (is_quantized(before)) {
    throw Error(source + ": expected rows of type float32 or bfloat16, got " +
                row_type_name(before));
  }
  const std::size_t bytes = model->pool()->values.nbytes();
  model->quantize_pool(arguments.rows == "int8" ? RowType::kInt8 : RowType::kInt4);
  write_new_model(arguments.out, model, source);

  const std::size_t now = model->pool()->values.nbytes();
  if (arguments.is_json) {
    std::cout << nlohmann::ordered_json{{"model", arguments.out},
                                        {"rows", arguments.rows},
                                        {"pool_bytes_before", bytes},
                                        {"pool_bytes", now}}
                     .dump()
              << '\n';
  } else {
    std::cout << arguments.out << ": rows of type " << arguments.rows << ", pool of "
              << short_bytes(static_cast<double>(now)) << " (was "
              << short_bytes(static_cast<double>(bytes)) << ")\n";
  }
  return 0;
}

}  // namespace

Command quantize_command() {
  return {
      "quantize", "Store a model's pool in 8 or 4 bits, for reading",
      "memlayers quantize runs/demo --rows int8 -o runs/demo-int8",
      [](CLI::App& app) -> std::function<int()> {
        auto a = std::make_shared<QuantizeArguments>();
        app.add_option("model", a->model, "model folder, or a run's folder")->required();
        app.add_option("-o,--out", a->out, "the new model folder")->required();
        app.add_option("--rows", a->rows, "int8: a scale a row; int4: a scale for 32 columns")
            ->check(CLI::IsMember({"int8", "int4"}))
            ->capture_default_str();
        app.add_option("--threads", a->threads, "CPU threads; 0: all cores")->capture_default_str();
        app.add_flag("--json", a->is_json, "one JSON object on standard output");
        return [a] { return quantize(*a); };
      }};
}

}  // namespace memlayers::cli
