// SPDX-License-Identifier: Apache-2.0
#include "edit/question_text.h"

#include <algorithm>
#include <set>

#include "memlayers/chat.h"

namespace memlayers::edit {
namespace {

using Conversation = std::vector<ChatMessage>;

// What the template writes around these messages, as it reads when it is decoded.
void add_written(const Tokenizer& tokenizer, const ChatTemplate& chat, const Conversation& messages,
                 std::set<std::string>& written) {
  std::vector<PromptPiece> stretches;
  try {
    for (PromptPiece& piece : chat.render(messages)) {
      if (!stretches.empty() && stretches.back().is_template == piece.is_template) {
        stretches.back().text += piece.text;
      } else {
        stretches.push_back(std::move(piece));
      }
    }
  } catch (const Error&) {  // a template that takes no system message, say
    return;
  }
  for (const PromptPiece& stretch : stretches) {
    if (!stretch.is_template) continue;
    std::string text = tokenizer.decode(tokenizer.encode_pieces({&stretch, 1}));
    if (text.find_first_not_of(" \t\r\n") != std::string::npos) written.insert(std::move(text));
  }
}

}  // namespace

QuestionText::QuestionText(const Tokenizer& tokenizer) {
  const auto chat = ChatTemplate::find(tokenizer);
  if (!chat) return;
  const Conversation turns{{"user", "a"}, {"assistant", "b"}, {"user", "c"}};
  Conversation with_system = turns;
  with_system.insert(with_system.begin(), {"system", "d"});
  std::set<std::string> written;
  add_written(tokenizer, *chat, {turns.front()}, written);
  add_written(tokenizer, *chat, turns, written);
  add_written(tokenizer, *chat, with_system, written);
  written_.assign(written.begin(), written.end());
  std::ranges::stable_sort(written_, std::ranges::greater(), &std::string::size);
}

std::string QuestionText::of(const Tokenizer& tokenizer,
                             std::span<const std::int32_t> prompt) const {
  std::string text = tokenizer.decode(prompt);
  for (const std::string& written : written_) {
    for (std::size_t at = 0; (at = text.find(written, at)) != std::string::npos; ++at) {
      text.replace(at, written.size(), 1, '\n');
    }
  }
  return text;
}

}  // namespace memlayers::edit
