// SPDX-License-Identifier: Apache-2.0
// Whether an answer rests on something that a patch taught (docs/editing.md, "Taught or not").
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "memlayers/generator.h"

namespace memlayers {

struct MemoryConfidence {
  double value = 0;  // that an applied patch taught what the prompt asks for, 0 to 1
  // What it is made of: how much of a subject's words the prompt has, and how many of the slots
  // that this subject's own prompts read it reads at its last token.
  double match = 0, agreement = 0;
  std::optional<std::string> patch = {};  // the id of the one whose subject that is
};

// The confidence for a prompt, put as generator.ask() puts it; absent where no patch that is
// applied says what it teaches. `rows`: of the pool's store; absent: how it is now. Costs a forward
// pass of the prompt where its words are a subject's, and next to nothing where they are not.
//
// Throws Error for a prompt without tokens or longer than the context.
std::optional<MemoryConfidence> memory_confidence(Generator& generator, const std::string& prompt,
                                                  const std::optional<Snapshot>& rows = {});

// What Generator::judge_by() takes: the same of a prompt as tokens. What it has in common with a
// message without text (a template's system message) is not looked at. The generator's model and
// tokenizer are shared; calls from several threads are fine.
Generator::Judge confidence_judge(const Generator& generator);

}  // namespace memlayers
