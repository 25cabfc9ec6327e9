// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <iostream>
#include <memory>
#include <optional>

#include "cli/command.h"
#include "cli/generate_options.h"
#include "cli/interrupts.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "io/file_system.h"
#include "io/shown.h"
#include "io/streams.h"
#include "memlayers/chat.h"
#include "memlayers/decoder.h"
#include "memlayers/error.h"
#include "memlayers/generator.h"

namespace memlayers::cli {
namespace {

struct ChatArguments {
  std::string model, template_file, pool = "mapped";
  std::optional<std::string> system;
  std::optional<double> gate_below;
  GenerateOptions options;
  int threads = 0;
};

constexpr const char* kHelp =
    "A line is a message. Ctrl-C ends an answer, and at the prompt the conversation.\n"
    "  /system TEXT   set the system message and begin anew; without TEXT there is none\n"
    "  /reset         begin anew\n"
    "  /regenerate    answer the last message again, with the next seed\n"
    "  /help          this\n"
    "  /quit          end, as the end of input does\n"
    "  //TEXT         a message that begins with a slash\n";

ChatTemplate template_of(const Generator& generator, const std::string& file) {
  if (file.empty()) return chat_template_of(generator);
  return {generator.tokenizer(), file, io::read_stream_or_file(io::posix(), file)};
}

// Keys and values of two conversations as long as the context: of the one that there is, and of
// what an answer given again or a new beginning shares with it.
DecoderOptions kept_prefixes(const Generator& generator) {
  const Llama& model = generator.model();
  return {.cache_bytes = 2 * KvCache::bytes_of(*model, model->config().context),
          .keeps_prefixes = true};
}

class Conversation {
 public:
  Conversation(Generator& generator, const ChatArguments& arguments, Interrupts& interrupts)
      : generator_(generator),
        template_(template_of(generator, arguments.template_file)),
        options_(arguments.options),
        interrupts_(interrupts),
        decoder_(generator.model(), generator.shared_tokenizer(), kept_prefixes(generator)) {
    begin(arguments.system);
  }

  // Whether the conversation goes on.
  bool take(const std::string& line) {
    if (line.empty()) return true;
    if (line[0] != '/' || line.starts_with("//")) {
      messages_.push_back({"user", line[0] == '/' ? line.substr(1) : line});
      answer();
      return true;
    }
    const std::size_t end = line.find(' ');
    const std::string command = line.substr(0, end);
    const std::string rest = end == std::string::npos ? "" : line.substr(end + 1);
    if (command == "/quit" || command == "/exit") return false;
    if (command == "/help") {
      std::cerr << kHelp;
    } else if (command == "/reset") {
      begin(system_);
    } else if (command == "/system") {
      begin(rest.empty() ? std::nullopt : std::optional(rest));
    } else if (command == "/regenerate") {
      again();
    } else {
      throw Error("expected a message or one of /system, /reset, /regenerate, /help, /quit, got " +
                  io::quote(command));
    }
    return true;
  }

 private:
  void begin(std::optional<std::string> system) {
    system_ = std::move(system);
    messages_.clear();
    if (system_) messages_.push_back({"system", *system_});
  }

  void again() {
    const bool has_answer = !messages_.empty() && messages_.back().role == "assistant";
    if (!has_answer) throw Error("/regenerate: expected an answer to give again, got none yet");
    messages_.pop_back();
    ++options_.seed;
    answer();
  }

  // To the last message, which goes as it came where there can be no answer.
  void answer() {
    std::string text;
    try {
      const std::vector<PromptPiece> prompt = template_.render(messages_);
      check_room(prompt);
      const auto results = generator_.generate_pieces(decoder_, {prompt}, options_,
                                                      [&](std::int64_t, const std::string& more) {
                                                        text += more;
                                                        std::cout << more << std::flush;
                                                        return !interrupts_.requested();
                                                      });
      std::cout << std::endl;
      tell_end(results[0]);
    } catch (const Error&) {
      if (!text.empty()) std::cout << std::endl;
      messages_.pop_back();
      throw;
    }
    messages_.push_back({"assistant", text});
    tell_store_error(generator_, told_);
  }

  std::int64_t context() const { return generator_.model()->config().context; }

  void check_room(const std::vector<PromptPiece>& prompt) const {
    const auto tokens =
        static_cast<std::int64_t>(generator_.tokenizer().encode_pieces(prompt).size());
    if (tokens < context()) return;
    throw Error("expected a conversation of less than " + std::to_string(context()) +
                " tokens, the model's context, got " + std::to_string(tokens) +
                "; the message is taken back, and /reset begins anew");
  }

  // An answer that something cut is told from one that ended.
  void tell_end(const Generation& result) const {
    if (result.finish != FinishReason::kLength) return;
    const auto tokens = result.prompt_tokens + static_cast<std::int64_t>(result.tokens.size());
    std::cerr << (tokens >= context()
                      ? "(the context of " + std::to_string(context()) +
                            " tokens is full; /reset begins anew)\n"
                      : "(ended at --max-tokens " + std::to_string(options_.max_tokens) + ")\n");
  }

  Generator& generator_;
  const ChatTemplate template_;
  GenerateOptions options_;
  Interrupts& interrupts_;
  Decoder decoder_;  // across answers: each turn begins with all of the turns before it
  std::optional<std::string> system_;
  std::vector<ChatMessage> messages_;
  std::string told_;
};

int chat(const ChatArguments& arguments) {
  try {
    arguments.options.validate();
  } catch (const Error& error) {
    throw UsageError(std::string("chat: ") + error.what());
  }
  set_threads(arguments.threads);
  Generator generator = Generator::load(arguments.model, {.access = row_access(arguments.pool)});
  generator.ask_by(ChatShape{template_of(generator, arguments.template_file), arguments.system});
  judge_as_told(generator, arguments.gate_below, /*tells=*/false);
  Interrupts interrupts;
  Conversation conversation(generator, arguments, interrupts);
  const bool has_terminal = is_terminal(STDIN_FILENO);
  if (has_terminal) std::cerr << "One message a line; /help tells the commands.\n";
  LineInput input(interrupts);
  while (true) {
    if (has_terminal) std::cerr << "> ";
    const std::optional<std::string> line = input.next();
    if (!line) {
      if (has_terminal) std::cerr << '\n';
      return interrupts.requested() ? kInterrupted : 0;
    }
    try {
      if (!conversation.take(*line)) return 0;
    } catch (const Error& error) {  // ends the message, not the conversation
      print_error(error.what());
    }
    interrupts.forget();
  }
}

}  // namespace

Command chat_command() {
  return {"chat", "Talk with a model that has a chat template",
          "memlayers chat models/smollm2 --temperature 0.7 --top-p 0.9",
          [](CLI::App& app) -> std::function<int()> {
            auto a = std::make_shared<ChatArguments>();
            constexpr std::int64_t kLongAnswer = 1024;
            a->options.max_tokens = kLongAnswer;
            add_model(app, a->model);
            app.add_option("--system", a->system, "the system message");
            app.add_option("--template", a->template_file,
                           "a file with another chat template than the model's");
            add_generate_options(app, a->options);
            add_gate(app, a->gate_below);
            add_pool_access(app, a->pool);
            add_threads(app, a->threads);
            return [a] { return chat(*a); };
          }};
}

}  // namespace memlayers::cli
