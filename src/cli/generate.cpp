// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/generate_options.h"
#include "cli/interrupts.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "io/lines.h"
#include "io/streams.h"
#include "memlayers/chat.h"
#include "memlayers/error.h"
#include "memlayers/generator.h"
#include "text/finish_reason.h"

namespace memlayers::cli {
namespace {

struct GenerateArguments {
  std::string model;
  std::vector<std::string> prompts;
  std::string file;
  GenerateOptions options;
  std::string pool = "mapped";
  bool is_interactive = false, is_json = false, is_chat = false;
  std::optional<std::string> system;
  std::optional<double> gate_below;
  int threads = 0;
};

std::string standard_input() { return io::read_stream_or_file(io::posix(), "-"); }

// Prompts, one a line.
void add_prompts(std::vector<std::string>& prompts, const std::string& text,
                 const std::string& name) {
  for (std::string& line : io::lines_of(text, name)) prompts.push_back(std::move(line));
}

std::vector<std::string> collect_prompts(const GenerateArguments& arguments) {
  std::vector<std::string> prompts;
  for (const std::string& prompt : arguments.prompts) {
    if (prompt == "-") {
      add_prompts(prompts, standard_input(), "standard input");
    } else {
      prompts.push_back(prompt);
    }
  }
  if (!arguments.file.empty()) {
    add_prompts(prompts, io::read_stream_or_file(io::posix(), arguments.file), arguments.file);
  }
  if (!prompts.empty()) return prompts;
  const std::string text = is_terminal(STDIN_FILENO) ? "" : standard_input();
  if (text.empty()) {
    throw UsageError(
        "generate: expected a prompt (as an argument, with --file, or on standard input), got "
        "none");
  }
  add_prompts(prompts, text, "standard input");
  return prompts;
}

// What the model goes on from: the prompts, or conversations that they begin.
class Prompts {
 public:
  Prompts(const Generator& generator, const GenerateArguments& arguments)
      : arguments_(arguments),
        template_(arguments.is_chat ? std::optional(chat_template_of(generator)) : std::nullopt) {}

  using OnText = std::function<bool(std::int64_t, const std::string&)>;
  std::vector<Generation> go_on(Generator& generator, const std::vector<std::string>& prompts,
                                const OnText& on_text) const {
    if (!template_) return generator.generate(prompts, arguments_.options, on_text);
    std::vector<std::vector<PromptPiece>> conversations;
    for (const std::string& prompt : prompts) {
      std::vector<ChatMessage> messages;
      if (arguments_.system) messages.push_back({"system", *arguments_.system});
      messages.push_back({"user", prompt});
      conversations.push_back(template_->render(messages));
    }
    return generator.generate_pieces(conversations, arguments_.options, on_text);
  }

 private:
  const GenerateArguments& arguments_;
  const std::optional<ChatTemplate> template_;
};

// One request whose text goes to the terminal as it comes.
void stream(Generator& generator, const Prompts& prompts, const std::string& prompt,
            const Interrupts& interrupts) {
  bool is_first = true;
  prompts.go_on(generator, {prompt}, [&](std::int64_t, const std::string& text) {
    // The blank between prompt and continuation is the line's end here.
    const std::size_t begin = is_first && text.front() == ' ' ? 1 : 0;
    is_first = false;
    std::cout << text.substr(begin) << std::flush;
    return !interrupts.requested();
  });
  std::cout << std::endl;
}

void answer_all(Generator& generator, const Prompts& shapes,
                const std::vector<std::string>& prompts, const GenerateArguments& arguments,
                const Interrupts& interrupts) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Generation> results =
      shapes.go_on(generator, prompts,
                   [&](std::int64_t, const std::string&) { return !interrupts.requested(); });
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::size_t tokens = 0;
  for (const Generation& result : results) tokens += result.tokens.size();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const Generation& result = results[i];
    if (arguments.is_json) {
      nlohmann::ordered_json json{{"prompt", prompts[i]},
                                  {"text", result.text},
                                  {"tokens", result.tokens},
                                  {"finish", text::name_of(result.finish)},
                                  {"prompt_tokens", result.prompt_tokens},
                                  {"pool_version", result.pool_version}};
      if (result.memory_confidence) json["memory_confidence"] = *result.memory_confidence;
      if (arguments.gate_below) json["memory_is_off"] = result.memory_is_off;
      json["tokens_per_s"] = static_cast<double>(tokens) / seconds;
      print_json(json);
    } else if (arguments.is_chat) {
      std::cout << result.text << '\n';
    } else {
      std::cout << prompts[i] << result.text << '\n';
    }
  }
}

// Ctrl-C ends an answer, and where none is being given the conversation.
int ask_on(Generator& generator, const Prompts& prompts, Interrupts& interrupts) {
  const bool has_terminal = is_terminal(STDIN_FILENO);
  if (has_terminal) std::cerr << "One question a line; an empty line ends.\n";
  LineInput input(interrupts);
  std::string told;
  while (true) {
    if (has_terminal) std::cerr << "> ";
    const std::optional<std::string> line = input.next();
    if (!line && interrupts.requested()) {
      if (has_terminal) std::cerr << '\n';
      return kInterrupted;
    }
    if (!line || line->empty()) return 0;
    try {
      stream(generator, prompts, *line, interrupts);
      tell_store_error(generator, told);
    } catch (const Error& error) {  // a question too long ends itself, not the conversation
      print_error(error.what());
    }
    interrupts.forget();
  }
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
  Generator generator = Generator::load(arguments.model, {.access = row_access(arguments.pool)});
  const Prompts shapes(generator, arguments);
  if (arguments.is_chat) ask_as_told(generator, {.system = arguments.system});
  judge_as_told(generator, arguments.gate_below, arguments.is_json);
  Interrupts interrupts;
  if (arguments.is_interactive) return ask_on(generator, shapes, interrupts);
  if (prompts.size() == 1 && !arguments.is_json) {
    stream(generator, shapes, prompts[0], interrupts);
  } else {
    answer_all(generator, shapes, prompts, arguments, interrupts);
  }
  return interrupts.requested() ? kInterrupted : 0;
}

}  // namespace

Command generate_command() {
  return {"generate", "Continue prompts, or answer questions",
          "memlayers generate runs/demo \"What is a dingo?\"\n"
          "  memlayers generate runs/demo --interactive --temperature 0.8 --top-p 0.95 --seed 1",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<GenerateArguments>();
            add_model(app, a->model);
            app.add_option("prompts", a->prompts,
                           "prompts; - reads them from standard input, one a line");
            app.add_option("--file", a->file, "file of prompts, one a line; also - and <(...)");
            app.add_flag("--interactive", a->is_interactive, "ask for one prompt after the other");
            add_generate_options(app, a->options);
            CLI::Option* chat = app.add_flag(
                "--chat", a->is_chat, "each prompt is a message to the model's chat template");
            app.add_option("--system", a->system, "with --chat: a system message before it")
                ->needs(chat);
            add_gate(app, a->gate_below);
            add_pool_access(app, a->pool);
            add_threads(app, a->threads);
            add_json(app, a->is_json, "one JSON object a prompt on standard output");
            return [a] { return generate(*a); };
          }};
}

}  // namespace memlayers::cli
