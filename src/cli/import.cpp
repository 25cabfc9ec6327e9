// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "io/gguf/source.h"
#include "io/model_source.h"
#include "io/write_model.h"
#include "memlayers/error.h"
#include "memlayers/llama.h"
#include "nn/model_folder.h"

namespace memlayers::cli {
namespace {

struct ImportArguments {
  std::string file, out;
  std::optional<std::string> dtype;
  bool is_json = false;
};

// Weights that lie in blocks of that type are taken as they are.
void import_quantized(const ImportArguments& arguments, const io::ModelSource& source) {
  const RowType type = arguments.dtype == "int8" ? RowType::kInt8 : RowType::kInt4;
  if (source.config().weights == type) {
    return write_new_model(arguments.out, load_model(arguments.file), arguments.file);
  }
  Llama model = load_widened(io::posix(), arguments.file);
  model->quantize_weights(type);
  write_new_model(arguments.out, model, arguments.file);
}

int import_model(const ImportArguments& arguments) {
  work_without_readers();
  check_is_new(arguments.out, "folder");
  io::FileSystem& fs = io::posix();
  if (fs.is_folder(arguments.file)) {
    throw Error(arguments.file + ": expected a GGUF file, got a folder");
  }
  const auto source = io::gguf::open_source(fs, arguments.file);
  const std::int64_t numbers = io::numbers_in(*source);
  const std::string dtype = arguments.dtype.value_or(
      source->config().dtype == DenseType::kFloat32 ? "float32" : "bfloat16");
  if (dtype.starts_with("int")) {
    import_quantized(arguments, *source);
  } else {
    ProgressBar bar("import", numbers);
    io::write_model_folder(fs, *source, arguments.out,
                           dtype == "float32" ? DenseType::kFloat32 : DenseType::kBFloat16,
                           [&](std::int64_t done) { bar.update(done); });
    bar.finish();
  }
  if (arguments.is_json) {
    print_json({{"model", arguments.out}, {"parameters", numbers}, {"dtype", dtype}});
  } else {
    std::cout << arguments.out << ": " << short_count(static_cast<double>(numbers))
              << " parameters of type " << dtype << '\n';
  }
  return 0;
}

}  // namespace

Command import_command() {
  return {"import", "Make a model folder of a GGUF file",
          "memlayers import SmolLM2-135M-Instruct.Q4_1.gguf -o models/smollm2\n"
          "  memlayers generate models/smollm2 \"The capital of France is\"",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<ImportArguments>();
            app.add_option("file", a->file, "the .gguf file; of one that was split, the first part")
                ->required();
            app.add_option("-o,--out", a->out, "the new folder, as Hugging Face's tools read it")
                ->required();
            app.add_option(
                   "--dtype", a->dtype,
                   "float32 or bfloat16, of all weights; int8 or int4, as quantize --weights "
                   "stores them (without it: bfloat16 where the file is, else float32)")
                ->check(CLI::IsMember({"float32", "bfloat16", "int8", "int4"}));
            add_json(app, a->is_json);
            return [a] { return import_model(*a); };
          }};
}

}  // namespace memlayers::cli
