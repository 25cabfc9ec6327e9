// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "memlayers/error.h"
#include "memlayers/generator.h"

namespace memlayers::cli {
namespace {

constexpr int kInterrupted = 130;
std::atomic<bool> interrupted = false;

struct GenerateArguments {
  std::string model;
  std::vector<std::string> prompts;
  std::string file;
  GenerateOptions options;
  std::string pool = "mapped";
  bool is_interactive = false, is_json = false;
  int threads = 0;
};

std::vector<std::string> lines_of(std::istream& in) {
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> collect_prompts(const GenerateArguments& arguments) {
  std::vector<std::string> prompts;
  for (const std::string& prompt : arguments.prompts) {
    if (prompt == "-") {
      for (std::string& line : lines_of(std::cin)) prompts.push_back(std::move(line));
    } else {
      prompts.push_back(prompt);
    }
  }
  if (!arguments.file.empty()) {
    std::istringstream text(io::read_text(io::posix(), arguments.file));
    for (std::string& line : lines_of(text)) prompts.push_back(std::move(line));
  }
  if (prompts.empty() && arguments.file.empty() && !is_terminal(STDIN_FILENO)) {
    prompts = lines_of(std::cin);
  }
  if (prompts.empty()) {
    throw UsageError(
        "generate: expected a prompt (as an argument, with --file, or on standard input), got "
        "none");
  }
  return prompts;
}

const char* reason(FinishReason finish) {
  return finish == FinishReason::kStop ? "stop" : "length";
}

// One request whose text goes to the terminal as it comes.
void stream(Generator& generator, const std::string& prompt, const GenerateOptions& options) {
  bool is_first = true;
  generator.generate({prompt}, options, [&](std::int64_t, const std::string& text) {
    // The blank between prompt and continuation is the line's end here.
    const std::size_t begin = is_first && text.front() == ' ' ? 1 : 0;
    is_first = false;
    std::cout << text.substr(begin) << std::flush;
    return !interrupted;
  });
  std::cout << std::endl;
}

void answer_all(Generator& generator, const std::vector<std::string>& prompts,
                const GenerateArguments& arguments) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Generation> results =
      generator.generate(prompts, arguments.options,
                         [](std::int64_t, const std::string&) { return !interrupted.load(); });
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::size_t tokens = 0;
  for (const Generation& result : results) tokens += result.tokens.size();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Generation& result = results[i];
    if (arguments.is_json) {
      const nlohmann::ordered_json line = {{"prompt", prompts[i]},
                                           {"text", result.text},
                                           {"tokens", result.tokens},
                                           {"finish", reason(result.finish)},
                                           {"prompt_tokens", result.prompt_tokens},
                                           {"pool_version", result.pool_version},
                                           {"tokens_per_s", static_cast<double>(tokens) / seconds}};
      std::cout << line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    } else {
      std::cout << prompts[i] << result.text << '\n';
    }
  }
}

// Edits that cannot be followed are told once; answers go on with the version before.
void tell_store_error(const Generator& generator, std::string& told) {
  const std::string error = generator.store_error().value_or("");
  if (!error.empty() && error != told) {
    std::cerr << "memlayers: warning: " << error << "; the pool stays as it was\n";
  }
  told = error;
}

int chat(Generator& generator, const GenerateOptions& options) {
  const bool has_terminal = is_terminal(STDIN_FILENO);
  if (has_terminal) std::cerr << "One question a line; an empty line ends.\n";
  std::string line, told;
  while (!interrupted) {
    if (has_terminal) std::cerr << "> ";
    if (!std::getline(std::cin, line) || line.empty()) return 0;
    try {
      stream(generator, line, options);
      tell_store_error(generator, told);
    } catch (const Error& error) {  // a question too long ends itself, not the conversation
      std::cerr << "memlayers: error: " << error.what() << '\n';
    }
  }
  return kInterrupted;
}

int generate(const GenerateArguments& arguments) {
  try {
    arguments.options.validate();
  } catch (const Error& error) {
    throw UsageError(std::string("generate: ") + error.what());
  }
  set_threads(arguments.threads);
  std::vector<std::string> prompts;
  if (!arguments.is_interactive) prompts = collect_prompts(arguments);
  const RowAccess access = arguments.pool == "memory"  ? RowAccess::kMemory
                           : arguments.pool == "pread" ? RowAccess::kRead
                                                       : RowAccess::kMapped;
  Generator generator = Generator::load(arguments.model, {.access = access});
  std::signal(SIGINT, [](int) { interrupted = true; });
  if (arguments.is_interactive) return chat(generator, arguments.options);
  if (prompts.size() == 1 && !arguments.is_json) {
    stream(generator, prompts[0], arguments.options);
  } else {
    answer_all(generator, prompts, arguments);
  }
  return interrupted ? kInterrupted : 0;
}

}  // namespace

Command generate_command() {
  return {
      "generate", "Continue prompts, or answer questions",
      "memlayers generate runs/demo \"What is a dingo?\"\n"
      "  memlayers generate runs/demo --interactive --temperature 0.8 --top-p 0.95 --seed 1",
      [](CLI::App& app) -> std::function<int()> {
        auto a = std::make_shared<GenerateArguments>();
        app.add_option("model", a->model, "model folder, or a run's folder")->required();
        app.add_option("prompts", a->prompts,
                       "prompts; - reads them from standard input, one a line");
        app.add_option("--file", a->file, "file of prompts, one a line");
        app.add_flag("--interactive", a->is_interactive, "ask for one prompt after the other");
        app.add_option("--max-tokens", a->options.max_tokens, "new tokens, at most")
            ->capture_default_str();
        app.add_option("--temperature", a->options.temperature, "0: always the most likely token")
            ->capture_default_str();
        app.add_option("--top-k", a->options.top_k, "draw from the k most likely tokens");
        app.add_option("--top-p", a->options.top_p,
                       "draw from the smallest set with this probability");
        app.add_option("--seed", a->options.seed, "of the draws")->capture_default_str();
        app.add_option("--stop", a->options.stop, "text that ends a generation (repeatable)");
        app.add_flag("--ignore-eos", a->options.ignore_eos, "go on behind the end-of-text token");
        app.add_option("--pool", a->pool,
                       "mapped: the pool's rows stay in their files, read as needed; memory: read "
                       "all of them first; pread: each part when it is first needed, and keep it, "
                       "for a disk that may fail")
            ->check(CLI::IsMember({"mapped", "memory", "pread"}))
            ->capture_default_str();
        app.add_option("--threads", a->threads, "CPU threads (0: all cores)")
            ->capture_default_str();
        app.add_flag("--json", a->is_json, "one JSON object a prompt on standard output");
        return [a] { return generate(*a); };
      }};
}

}  // namespace memlayers::cli
