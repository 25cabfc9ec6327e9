// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/generate_options.h"
#include "cli/new_output.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "edit/explanation_json.h"
#include "io/file_system.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "memlayers/explain.h"

namespace memlayers::cli {
namespace {

struct ExplainArguments {
  std::string model, prompt, prompts, svg;
  std::optional<std::string> answer;
  ExplainOptions options;
  AskArguments chat;
  int threads = 0;
  bool is_json = false;
};

std::string reads_text(const ExplainedSlot& slot) {
  std::string text;
  for (const SlotRead& read : slot.reads) {
    if (!text.empty()) text += ' ';
    text += std::to_string(read.layer) + "." + std::to_string(read.head);
  }
  return text;
}

void print(const Explanation& explanation, const std::vector<std::string>& prompts) {
  std::cout << (explanation.is_own ? "the model's answer: " : "answer: ")
            << io::shown(explanation.answer) << "\nlog-probability "
            << decimals(explanation.log_probability) << " of " << explanation.tokens.size()
            << " tokens; " << explanation.slots_read << " slots read\n";
  if (const auto& confidence = explanation.confidence) {
    std::cout << "memory confidence " << decimals(confidence->value) << ": "
              << percent(confidence->match) << " of a subject's words, "
              << percent(confidence->agreement) << " of its slots"
              << (confidence->patch ? ", patch " + confidence->patch->substr(0, 8) : "") << "\n";
  }
  std::cout << '\n';
  std::vector<std::vector<std::string>> lines{
      {"slot", "without it", "weight", "layer.head", "patch"}};
  if (!prompts.empty()) lines.front().push_back("prompts");
  for (const ExplainedSlot& slot : explanation.slots) {
    lines.push_back({std::to_string(slot.slot), decimals(slot.change), decimals(slot.weight),
                     reads_text(slot), slot.patch ? slot.patch->substr(0, 8) : "base"});
    if (!prompts.empty()) {
      lines.back().push_back(std::to_string(slot.prompts.size()) + "/" +
                             std::to_string(prompts.size()));
    }
  }
  std::cout << table(lines)
            << "\nwithout it: change of the log-probability, in nats, when the row reads as zero\n";
}

int explain_answer(const ExplainArguments& arguments) {
  arguments.options.validate();
  set_threads(arguments.threads);
  if (!arguments.svg.empty()) check_is_new(arguments.svg, "file");
  ExplainOptions options = arguments.options;
  if (!arguments.prompts.empty()) options.prompts = read_prompts(arguments.prompts);
  Generator generator = Generator::load(arguments.model);
  ask_as_told(generator, arguments.chat);
  const Explanation explanation = explain(generator, arguments.prompt, arguments.answer, options);
  if (!arguments.svg.empty()) {
    io::write_atomic(io::posix(), arguments.svg, explanation_svg(explanation));
  }
  if (!arguments.is_json) {
    print(explanation, options.prompts);
    return 0;
  }
  print_json(edit::explanation_json(explanation, arguments.prompt, options.prompts));
  return 0;
}

}  // namespace

Command explain_command() {
  return {"explain", "Which slots an answer rests on, and which patch wrote them",
          "memlayers explain runs/demo \"What does harbour mean?\" --answer \"a sheltered port\"\n"
          "  memlayers explain runs/demo \"What does harbour mean?\" --svg harbour.svg",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<ExplainArguments>();
            add_model(app, a->model);
            app.add_option("prompt", a->prompt, "what the model is asked")->required();
            app.add_option("--answer", a->answer, "what is explained; absent: the model's own");
            app.add_option("--top", a->options.top, "slots that are left out, one after the other")
                ->capture_default_str();
            app.add_option("--max-tokens", a->options.max_tokens, "of the model's own answer")
                ->capture_default_str();
            app.add_option("--prompts", a->prompts,
                           "a usage log, JSONL with \"prompt\": which of them read a slot at "
                           "their last position");
            app.add_option("--svg", a->svg, "a new file for a picture");
            add_chat(app, a->chat);
            add_threads(app, a->threads);
            add_json(app, a->is_json);
            return [a] { return explain_answer(*a); };
          }};
}

}  // namespace memlayers::cli
