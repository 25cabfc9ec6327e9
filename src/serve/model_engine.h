// SPDX-License-Identifier: Apache-2.0
// A model on the CPU that answers many requests at once, and its pool that is edited meanwhile
// (docs/serving.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "api/engine.h"
#include "memlayers/edit.h"
#include "memlayers/generator.h"
#include "memlayers/store.h"

namespace memlayers::serve {

struct EngineOptions {
  std::string model_id = {};          // absent: the folder's name
  std::int64_t sequences = 16;        // that are answered at once, at most
  std::int64_t waiting = 256;         // behind them; beyond: 429
  std::int64_t prefill_tokens = 256;  // DecoderOptions, at most
  // How many times as long a step lasts, about, that takes in a piece of a prompt beside answers of
  // others: pieces are as small as that needs. 0: prefill_tokens at once.
  double slowdown = 2.5;
  std::optional<std::int64_t> context = {};  // tokens of prompt and answer; absent: the model's
  // Of keys and values, those kept for prompts that begin alike included; absent: what as many
  // sequences of the whole context take, at most half of the machine's memory.
  std::optional<std::int64_t> cache_bytes = {};
  bool keeps_prefixes = true;
  std::int64_t drafted_tokens = 0;  // DecoderOptions; 0: none
  std::size_t held_versions = 16;   // of the pool, that requests may name
  // Whether answers tell the confidence that a patch taught what they were asked (confidence.h);
  // and below which the memory is off for one.
  bool tells_confidence = true;
  std::optional<double> gate_below = {};
  StoreOptions store = {};  // how the pool's rows are read
  // Of jobs that teach; rehearse is theirs. Somebody waits for a fact or two: they are tested
  // often.
  LearnOptions learn = {.check_every = 5};
  int teach_niceness = 19;  // of their thread, as nice(1) has it

  void validate() const;  // throws Error naming the first wrong field
};

// An engine with a thread of its own that makes the steps, until the object goes.
class ModelEngine : public api::Engine {
 public:
  // Of a model folder, whose pool it edits, or only follows where another process has it. Throws
  // Error as Generator::load().
  static std::unique_ptr<ModelEngine> open(const std::string& model_folder,
                                           const EngineOptions& options = {});

  // From now on requests are refused (503); those that came are answered to their end.
  virtual void drain() = 0;
  // Waits until none is left, at most so long; whether so.
  virtual bool wait_until_idle(double seconds) = 0;
  // Ends what is left with an error, and the threads.
  virtual void stop() = 0;
};

}  // namespace memlayers::serve
