// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/options.h"
#include "io/file_system.h"
#include "io/json.h"
#include "io/shown.h"
#include "io/streams.h"
#include "memlayers/chat.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "memlayers/tokenizer.h"

namespace memlayers::cli {
namespace {

using TokenJson = nlohmann::ordered_json;
using TokenIds = std::vector<std::int32_t>;

struct TokenizeArguments {
  std::string model;
  std::optional<std::string> text;
  std::optional<std::string> chat;
  std::string template_file;
  bool decodes = false, is_bare = false, takes_special = false, only_ids = false, is_json = false,
       is_batch = false;
};

std::shared_ptr<const Tokenizer> tokenizer_of(const std::string& model) {
  const bool has_files = !io::posix().is_folder(model) ||
                         io::posix().exists(io::join(model, "tokenizer.json")) ||
                         io::posix().exists(io::join(model, "tokenizer.model"));
  return load_tokenizer(has_files ? model : resolve_model_folder(model));
}

TokenIds encode(const Tokenizer& tokenizer, const std::string& text,
                const TokenizeArguments& arguments) {
  const TokenIds plain =
      arguments.takes_special ? tokenizer.encode_special(text) : tokenizer.encode(text);
  if (arguments.is_bare) return plain;
  TokenIds ids = tokenizer.prefix();
  ids.insert(ids.end(), plain.begin(), plain.end());
  ids.insert(ids.end(), tokenizer.suffix().begin(), tokenizer.suffix().end());
  return ids;
}

// Whole numbers with blanks or commas between them, perhaps in brackets.
TokenIds read_ids(std::string_view text) {
  TokenIds ids;
  constexpr std::string_view kBetween = " \t\r\n,[]";
  for (std::size_t at = text.find_first_not_of(kBetween); at != text.npos;
       at = text.find_first_not_of(kBetween, at)) {
    const std::size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    std::int32_t id = 0;
    const auto [stop, error] = std::from_chars(text.data() + at, text.data() + end, id);
    if (error != std::errc() || stop != text.data() + end) {
      throw Error("ids: expected whole numbers, got " + io::quote(text.substr(at, end - at)));
    }
    ids.push_back(id);
    at = end;
  }
  return ids;
}

TokenJson json_of(const Tokenizer& tokenizer, const TokenIds& ids) {
  TokenJson tokens = TokenJson::array();
  for (const std::int32_t id : ids) tokens.push_back(tokenizer.token(id));
  return {{"ids", ids}, {"tokens", tokens}};
}

void print_line(const TokenJson& json) { std::cout << json.dump() << '\n'; }

// What a chat template makes of requests: each of them may bring its own.
class Chats {
 public:
  Chats(const Tokenizer& tokenizer, const std::string& template_file) : tokenizer_(tokenizer) {
    if (!template_file.empty()) {
      template_.emplace(tokenizer, template_file,
                        io::read_stream_or_file(io::posix(), template_file));
    }
  }

  std::vector<PromptPiece> render(const std::string& text, const std::string& where) {
    TokenJson request = io::parse_ordered_json(text, where);
    if (request.is_object() && request.contains("chat_template")) {
      const TokenJson source = request["chat_template"];
      request.erase("chat_template");
      if (!source.is_string()) throw Error(where + ": chat_template: expected a string");
      return ChatTemplate(tokenizer_, "chat_template", source.get<std::string>())
          .render_json(request.dump(), where);
    }
    if (!template_) template_ = ChatTemplate::find(tokenizer_);
    if (!template_) {
      throw Error(
          "expected a tokenizer with a chat template (chat_template.jinja, or chat_template "
          "in tokenizer_config.json) or --template, got neither");
    }
    return template_->render_json(text, where);
  }

 private:
  const Tokenizer& tokenizer_;
  std::optional<ChatTemplate> template_;
};

TokenJson json_of(const Tokenizer& tokenizer, const std::vector<PromptPiece>& pieces) {
  TokenJson json{{"text", joined(pieces)}, {"pieces", TokenJson::array()}};
  for (const PromptPiece& piece : pieces) {
    json["pieces"].push_back({{"text", piece.text}, {"template", piece.is_template}});
  }
  json.update(json_of(tokenizer, tokenizer.encode_pieces(pieces)));
  return json;
}

void print_ids(const TokenIds& ids) {
  for (std::size_t i = 0; i < ids.size(); ++i) std::cout << (i > 0 ? " " : "") << ids[i];
  std::cout << '\n';
}

void run_chat(const Tokenizer& tokenizer, const TokenizeArguments& arguments) {
  Chats chats(tokenizer, arguments.template_file);
  if (arguments.is_batch) {
    std::string line;
    for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
      try {
        print_line(json_of(tokenizer, chats.render(line, "line " + std::to_string(number))));
      } catch (const Error& error) {  // of this request alone
        print_line({{"error", error.what()}});
      }
      std::cout.flush();
    }
    if (std::ferror(stdin) != 0) throw Error("standard input: cannot read it to its end");
    return;
  }
  const auto pieces = chats.render(io::read_stream_or_file(io::posix(), *arguments.chat),
                                   *arguments.chat == "-" ? "standard input" : *arguments.chat);
  if (arguments.is_json) {
    print_line(json_of(tokenizer, pieces));
  } else if (arguments.only_ids) {
    print_ids(tokenizer.encode_pieces(pieces));
  } else {
    std::cout << joined(pieces);
  }
}

void run_batch(const Tokenizer& tokenizer, const TokenizeArguments& arguments) {
  std::string line;
  for (std::int64_t number = 1; std::getline(std::cin, line); ++number) {
    const std::string where = "line " + std::to_string(number);
    const auto json = io::parse_json(line, where);
    if (arguments.decodes) {
      if (!json.is_array()) throw Error(where + ": expected a list of ids, got " + io::brief(json));
      print_line({{"text", tokenizer.decode(read_ids(json.dump()))}});
    } else {
      if (!json.is_string()) throw Error(where + ": expected a string, got " + io::brief(json));
      print_line({{"ids", encode(tokenizer, json.get<std::string>(), arguments)}});
    }
  }
  if (std::ferror(stdin) != 0) throw Error("standard input: cannot read it to its end");
}

int tokenize(const TokenizeArguments& arguments) {
  const auto tokenizer = tokenizer_of(arguments.model);
  if (arguments.chat) {
    run_chat(*tokenizer, arguments);
    return 0;
  }
  if (arguments.is_batch) {
    run_batch(*tokenizer, arguments);
    return 0;
  }
  const std::string text =
      arguments.text ? *arguments.text : io::read_stream_or_file(io::posix(), "-");
  if (arguments.decodes) {
    const std::string decoded = tokenizer->decode(read_ids(text));
    if (arguments.is_json) {
      print_line({{"text", decoded}});
    } else {
      std::cout << decoded << '\n';
    }
    return 0;
  }
  const TokenIds ids = encode(*tokenizer, text, arguments);
  if (arguments.is_json) {
    print_line(arguments.only_ids ? TokenJson{{"ids", ids}} : json_of(*tokenizer, ids));
  } else if (arguments.only_ids) {
    print_ids(ids);
  } else {
    // A token a line, spelled as in JSON: nothing in it moves a cursor.
    for (const std::int32_t id : ids) {
      std::cout << id << '\t' << TokenJson(tokenizer->token(id)).dump() << '\n';
    }
  }
  return 0;
}

}  // namespace

Command tokenize_command() {
  return {"tokenize", "Show the tokens of a text, or the text of tokens",
          "memlayers tokenize runs/demo \"What is a heron?\" --ids", [](CLI::App& app) {
            auto arguments = std::make_shared<TokenizeArguments>();
            app.add_option("MODEL", arguments->model,
                           "a run, a checkpoint, a model folder or a tokenizer file")
                ->required();
            CLI::Option* text =
                app.add_option("TEXT", arguments->text, "the text (without it: standard input)");
            app.add_flag("--ids", arguments->only_ids, "only the ids, in one line");
            add_json(app, arguments->is_json);
            CLI::Option* decode = app.add_flag(
                "--decode", arguments->decodes,
                "back: TEXT are ids, with blanks or commas between; their text is printed");
            app.add_flag("--bare", arguments->is_bare,
                         "without the special tokens that stand around a text")
                ->excludes(decode);
            app.add_flag("--special", arguments->takes_special,
                         "what spells a special token becomes it (else it is text)")
                ->excludes(decode);
            CLI::Option* chat = app.add_option(
                "--chat", arguments->chat,
                "FILE (or -) with a conversation in JSON, a list of messages or a request as chat "
                "servers take it: what the chat template makes of it (with --ids, --json its "
                "tokens)");
            chat->excludes(text)->excludes(decode);
            app.add_option("--template", arguments->template_file,
                           "with --chat: a file with another template than the model's")
                ->needs(chat);
            app.add_flag(
                   "--batch", arguments->is_batch,
                   "standard input has a JSON string a line (with --decode a list of ids, with "
                   "--chat - a conversation); one JSON object a line comes back")
                ->excludes(text);
            return [arguments] { return tokenize(*arguments); };
          }};
}

}  // namespace memlayers::cli
