// SPDX-License-Identifier: Apache-2.0
#include "edit/prose.h"

#include <string>

#include "memlayers/error.h"

namespace memlayers::edit {
namespace {

constexpr const char* kParagraphs[] = {
    "The road climbed out of the valley in long bends, past walls of grey stone and orchards that "
    "nobody had pruned for years. At the top the wind was cold, and one could see the river as far "
    "as the bridge, where the market was held on Thursdays.",
    "Water boils at a lower temperature in the mountains because the pressure of the air is less "
    "there. At 3,000 metres it is about 90 degrees Celsius, so that potatoes take longer to cook, "
    "and a pressure cooker saves much fuel.",
    "\"I thought you had left on Monday,\" she said, and put the kettle on. \"The trains are not "
    "running,\" he answered. \"They say it may take until the weekend.\"",
    "To return an item, log in to your account, choose the order, and print the label. Parcels "
    "that "
    "reach us within thirty days are refunded in full; please allow five working days for the "
    "payment to arrive.",
    "The council voted by nine to four to close the old swimming pool. Its roof would have cost "
    "2.3 "
    "million to repair, and the number of visitors had fallen in every year since 2011. A new "
    "building is planned beside the school.",
    "How do I keep bread fresh? Store it in a box or a cloth bag, not in the refrigerator, where "
    "it "
    "goes stale faster. Sliced bread can be frozen and toasted from frozen.",
    "def mean(numbers):\n    total = 0\n    for number in numbers:\n        total += number\n    "
    "return total / len(numbers)\n",
    "A triangle with sides of 3, 4 and 5 has a right angle, since 9 and 16 make 25. The same holds "
    "of every multiple of it, and of 5, 12 and 13.",
};

}  // namespace

std::vector<train::FactRow> prose_rows(Generator& generator) {
  std::vector<train::FactRow> rows;
  const auto most = static_cast<std::size_t>(generator.model()->config().context);
  for (const char* paragraph : kParagraphs) {
    train::FactRow row{.tokens = generator.tokenizer().encode_document(paragraph),
                       .answer_from = 1};
    if (row.tokens.size() > most) row.tokens.resize(most);
    if (row.tokens.size() > 1) rows.push_back(std::move(row));
  }
  if (rows.empty()) {
    throw Error("retrofit: expected a tokenizer that makes tokens of text, got none of it");
  }
  return rows;
}

}  // namespace memlayers::edit
