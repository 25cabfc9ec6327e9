// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "io/gguf/export.h"
#include "io/model_source.h"
#include "io/write_model.h"
#include "memlayers/checkpoint.h"
#include "memlayers/tokenizer.h"
#include "text/gguf_tokenizer.h"

namespace memlayers::cli {
namespace {

struct ExportArguments {
  std::string model, out, type = "f16";
  bool is_json = false;
};

const io::gguf::TensorType& tensor_type(const std::string& name) {
  std::string upper;
  for (const char c : name) upper += static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return *io::gguf::find_type(upper);
}

int export_model(const ExportArguments& arguments) {
  work_without_readers();
  check_is_new(arguments.out, "file");
  io::FileSystem& fs = io::posix();
  const std::string model = resolve_model_folder(arguments.model);
  const io::gguf::TensorType& type = tensor_type(arguments.type);
  // What cannot be written is known before the many bytes are read.
  io::gguf::Writer writer;
  io::gguf::put_config(writer, io::read_model(fs, model), type, model);
  const auto source = io::open_model_source(fs, model);
  text::put_tokenizer(writer, *load_tokenizer(model), source->config().vocab_size, model);
  if (const auto chat = source->text("chat_template.jinja")) {
    writer.text("tokenizer.chat_template", *chat);
  }
  const std::int64_t numbers = io::numbers_in(*source);
  {
    ProgressBar bar("export", numbers);
    io::gguf::write_model(fs, *source, writer, type, arguments.out,
                          [&](std::int64_t done) { bar.update(done); });
    bar.finish();
  }
  const std::uint64_t bytes = fs.open(arguments.out, io::OpenMode::kRead)->size();
  if (arguments.is_json) {
    print_json({{"file", arguments.out},
                {"parameters", numbers},
                {"type", std::string(type.name)},
                {"bytes", bytes}});
  } else {
    std::cout << arguments.out << ": " << short_count(static_cast<double>(numbers))
              << " parameters, matrices of type " << type.name << ", "
              << short_bytes(static_cast<double>(bytes)) << '\n';
  }
  return 0;
}

}  // namespace

Command export_command() {
  return {"export", "Make a GGUF file of a model without memory layers",
          "memlayers export models/smollm2 -o smollm2.gguf --type q8_0",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<ExportArguments>();
            add_model(app, a->model);
            app.add_option("-o,--out", a->out, "the new file")->required();
            app.add_option("--type", a->type, "of the matrices: f32, f16, bf16 or q8_0")
                ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}))
                ->capture_default_str();
            add_json(app, a->is_json);
            return [a] { return export_model(*a); };
          }};
}

}  // namespace memlayers::cli
