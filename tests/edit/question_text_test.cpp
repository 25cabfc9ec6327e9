// SPDX-License-Identifier: Apache-2.0
#include "edit/question_text.h"

#include <gtest/gtest.h>

#include "memlayers/chat.h"
#include "support/temp_dir.h"
#include "text/testing.h"
#include "text/tokenizer_json.h"

namespace memlayers::edit {
namespace {

constexpr const char* kTemplate =
    "{% if messages[0].role != 'system' %}<s>system\nYou help.</s>\n{% endif %}"
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}";

class QuestionTexts : public ::testing::Test {
 protected:
  QuestionTexts() {
    nlohmann::json json = text::ascii_tokenizer();
    json["model"]["vocab"]["\n"] = 10;
    json["added_tokens"] = {{{"id", 201}, {"content", "<s>"}, {"special", true}},
                            {{"id", 202}, {"content", "</s>"}, {"special", true}}};
    text::write_file(dir_ / "tokenizer.json", json.dump());
  }
  std::string text_of(const std::vector<ChatMessage>& messages) const {
    const auto tokenizer = load_tokenizer(dir_.path());
    const auto pieces = ChatTemplate::find(*tokenizer).value().render(messages);
    return QuestionText(*tokenizer).of(*tokenizer, tokenizer->encode_pieces(pieces));
  }
  testing::TempDir dir_;
};

TEST_F(QuestionTexts, AreWhatMessagesSayWithoutWhatTheTemplateWrites) {
  text::write_file(dir_ / "chat_template.jinja", kTemplate);
  EXPECT_EQ(text_of({{"user", "What is it?"}}), "\nWhat is it?\n");
  EXPECT_EQ(text_of({{"user", "Who?"}, {"assistant", "An assistant."}, {"user", "The user?"}}),
            "\nWho?\nAn assistant.\nThe user?\n");
  EXPECT_EQ(text_of({{"system", "Be brief."}, {"user", "Who?"}}), "\nBe brief.\nWho?\n");
}

TEST_F(QuestionTexts, NeedNoTemplateThatTakesASystemMessage) {
  text::write_file(dir_ / "chat_template.jinja",
                   std::string("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}"
                               "{% endif %}") +
                       kTemplate);
  EXPECT_EQ(text_of({{"user", "Who?"}}), "\nWho?\n");
}

TEST_F(QuestionTexts, AreAllOfAPromptWithoutATemplate) {
  const auto tokenizer = load_tokenizer(dir_.path());
  const QuestionText question(*tokenizer);
  EXPECT_EQ(question.of(*tokenizer, tokenizer->encode("system\nassistant\n")),
            "system\nassistant\n");
}

}  // namespace
}  // namespace memlayers::edit
