// SPDX-License-Identifier: Apache-2.0
// Continues prompts with a trained model, and shows the text as it comes.
//
//   generate MODEL PROMPT [PROMPT ...]       MODEL: a model folder, or the folder of a run
#include <memlayers/memlayers.h>

#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  using namespace memlayers;
  if (argc < 3) {
    std::cerr << "usage: generate MODEL PROMPT [PROMPT ...]\n";
    return 2;
  }
  try {
    // The rows of the pool stay in their files: opening takes no longer for a larger one.
    Generator generator = Generator::load(argv[1]);
    for (const std::string& prompt : std::vector<std::string>(argv + 2, argv + argc)) {
      std::cout << prompt;
      const auto show = [](std::int64_t /*row*/, const std::string& text) {
        std::cout << text << std::flush;
        return true;  // false ends the answer
      };
      const Generation answer = generator.generate({prompt}, {.max_tokens = 32}, show).front();
      std::cout << "\n  " << answer.prompt_tokens << " tokens of prompt, " << answer.tokens.size()
                << " of answer, "
                << (answer.finish == FinishReason::kStop ? "to its end" : "cut off") << "\n";
    }
  } catch (const std::exception& error) {
    std::cerr << "generate: " << error.what() << "\n";
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
