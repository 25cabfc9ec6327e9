// SPDX-License-Identifier: Apache-2.0
// Finds the slot that an answer rests on most, frees it in the model's store, and takes that back.
// Whoever serves the model meanwhile sees each edit with the next request.
//
//   edit_store MODEL PROMPT        MODEL: a model folder, or the folder of a run
#include <memlayers/memlayers.h>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>

namespace {

int edit(const std::string& model, const std::string& prompt) {
  using namespace memlayers;
  const std::string folder = resolve_model_folder(model);
  Generator generator = Generator::load(folder);
  const auto show_answer = [&](const char* when) {
    const std::string text = generator.generate({prompt}, {.max_tokens = 32}).front().text;
    std::cout << when << text << "\n";
    return text;
  };
  const std::string before = show_answer("before:    ");

  const Explanation why = explain(generator, prompt);
  const ExplainedSlot& slot = why.slots.front();
  std::cout << "slot " << slot.slot << " changes the answer's log-probability by " << slot.change
            << " when it reads as zero\n";

  // The one writer of the pool; readers never wait for it. Each edit is on the disk when it
  // returns, and is a patch that can be rolled back.
  Store store = Store::open(folder + "/pool");
  store.erase(slot.slot);
  const std::string patch = store.snapshot().patches().back().id;
  show_answer("erased:    ");

  store.rollback(patch);
  const std::string after = show_answer("rolled back: ");
  return after == before ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: edit_store MODEL PROMPT\n";
    return 2;
  }
  try {
    return edit(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::cerr << "edit_store: " << error.what() << "\n";
    return EXIT_FAILURE;
  }
}
