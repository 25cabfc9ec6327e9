// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

namespace memlayers::cli {

void add_model(CLI::App& app, std::string& model) {
  app.add_option("model", model, "model folder, a run's folder or a GGUF file")->required();
}

void add_threads(CLI::App& app, int& threads) {
  constexpr int kMost = 4096;
  app.add_option("--threads", threads, "CPU threads; 0: all cores")
      ->check(CLI::Range(0, kMost))
      ->capture_default_str();
}

void add_json(CLI::App& app, bool& is_json, const std::string& text) {
  app.add_flag("--json", is_json, text);
}

}  // namespace memlayers::cli
