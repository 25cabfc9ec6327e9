// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/new_output.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "memlayers/error.h"
#include "memlayers/explain.h"

namespace memlayers::cli {
namespace {

using Json = nlohmann::ordered_json;

struct ExplainArguments {
  std::string model, prompt, prompts, svg;
  std::optional<std::string> answer;
  ExplainOptions options;
  int threads = 0;
  bool is_json = false;
};

Json json_of(const ExplainedSlot& slot, const std::vector<std::string>& prompts) {
  Json reads = Json::array(), used = Json::array();
  for (const SlotRead& read : slot.reads) {
    reads.push_back({{"layer", read.layer},
                     {"head", read.head},
                     {"weight", read.weight},
                     {"by_token", read.by_token}});
  }
  for (const std::int64_t prompt : slot.prompts) used.push_back(prompts[prompt]);
  Json json{{"slot", slot.slot},     {"change", slot.change}, {"weight", slot.weight},
            {"length", slot.length}, {"patch", nullptr},      {"reads", reads}};
  if (slot.patch) json["patch"] = *slot.patch;
  if (!prompts.empty()) json["prompts"] = used;
  return json;
}

std::string reads_text(const ExplainedSlot& slot) {
  std::string text;
  for (const SlotRead& read : slot.reads) {
    if (!text.empty()) text += ' ';
    text += std::to_string(read.layer) + "." + std::to_string(read.head);
  }
  return text;
}

void print(const Explanation& explanation, const std::vector<std::string>& prompts) {
  std::cout << (explanation.is_own ? "the model's answer: " : "answer: ") << explanation.answer
            << "\nlog-probability " << decimals(explanation.log_probability) << " of "
            << explanation.tokens.size() << " tokens; " << explanation.slots_read
            << " slots read\n\n";
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
  const Explanation explanation = explain(generator, arguments.prompt, arguments.answer, options);
  if (!arguments.svg.empty()) {
    io::write_atomic(io::posix(), arguments.svg, explanation_svg(explanation));
  }
  if (!arguments.is_json) {
    print(explanation, options.prompts);
    return 0;
  }
  Json slots = Json::array();
  for (const ExplainedSlot& slot : explanation.slots) {
    slots.push_back(json_of(slot, options.prompts));
  }
  std::cout << Json{{"prompt", arguments.prompt},
                    {"answer", explanation.answer},
                    {"is_own", explanation.is_own},
                    {"tokens", explanation.tokens},
                    {"log_probability", explanation.log_probability},
                    {"slots_read", explanation.slots_read},
                    {"slots", slots}}
                   .dump(-1, ' ', false, Json::error_handler_t::replace)
            << '\n';
  return 0;
}

}  // namespace

Command explain_command() {
  return {
      "explain", "Which slots an answer rests on, and which patch wrote them",
      "memlayers explain runs/demo \"What does harbour mean?\" --answer \"a sheltered port\"\n"
      "  memlayers explain runs/demo \"What does harbour mean?\" --svg harbour.svg",
      [](CLI::App& app) -> std::function<int()> {
        auto a = std::make_shared<ExplainArguments>();
        app.add_option("model", a->model, "model folder, or a run's folder")->required();
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
        app.add_option("--threads", a->threads, "CPU threads; 0: all cores")->capture_default_str();
        app.add_flag("--json", a->is_json, "one JSON object on standard output");
        return [a] { return explain_answer(*a); };
      }};
}

}  // namespace memlayers::cli
