// SPDX-License-Identifier: Apache-2.0
// Continuing many sequences at once, step by step (docs/generate.md).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "memlayers/error.h"
#include "memlayers/generate_options.h"
#include "memlayers/llama.h"
#include "memlayers/tokenizer.h"

namespace memlayers {

struct DecoderOptions {
  std::int64_t prefill_tokens = 256;             // of prompts that one step takes in, at most
  std::optional<std::int64_t> cache_bytes = {};  // of keys and values, at most; absent: unlimited
  std::optional<std::int64_t> sequences = {};    // at once, at most; absent: unlimited
  bool gives_text =
      true;  // false: DecodedToken::text stays empty, and no stop string is looked for
  // Keys and values stay when their sequence has left, as far as cache_bytes allow, for sequences
  // that begin alike: in pages of KvCache::kPageTokens tokens, each as long as the pool's rows that
  // its tokens rest on are the same. What was used least lately goes first.
  bool keeps_prefixes = false;
  // Tokens that a step takes in on trial, all sequences together: those that followed the last few
  // tokens where these stood before, in the prompt or the answer. Those that are what would have
  // come are given at once, several of a sequence in one step; the answer is the same.
  std::int64_t drafted_tokens = 0;

  void validate() const;  // throws Error naming the first wrong field
};

// What one sequence reads of the model's memory layers.
struct SequenceMemory {
  // The version of the pool's store that all of it reads; absent: how the store is now.
  std::optional<Snapshot> rows = {};
  bool is_off = false;     // they give nothing, as if all rows were zero
  std::int64_t slots = 0;  // DecodedToken::slots: so many
};

// That a sequence does not fit beside those that are there.
class NoPlace : public Error {
 public:
  using Error::Error;
};

// Sequences that a model continues together. They join and leave between steps; a step takes the
// next token of each whose prompt is taken in, and beside them a piece of the prompts that are not
// yet, first come first served, so that a long prompt holds nobody up.
//
// A sequence gives the tokens, log-probabilities, text and end that it gives alone, bit for bit:
// whatever other sequences, with whatever options and pool versions, are beside it, whatever
// prefill_tokens is, for any number of threads. (Of one instruction set, MEMLAYERS_ISA; another one
// may round otherwise.)
//
// The model is shared, not copied, and put into evaluation mode; it lies on the CPU. Functions of
// one decoder are called by one thread at a time; several decoders may share a model.
class Decoder {
 public:
  // Throws Error where the tokenizer has more tokens than the model.
  Decoder(Llama model, std::shared_ptr<const Tokenizer> tokenizer,
          const DecoderOptions& options = {});
  ~Decoder();
  Decoder(Decoder&&) noexcept;
  Decoder& operator=(Decoder&&) noexcept;

  // A sequence that continues `prompt`, which is taken as it is (no BOS is added). Returns its
  // number, that no other has. Throws Error for wrong options, a prompt of no tokens, of ids the
  // model does not have, or longer than the context, and NoPlace where it does not fit: as many
  // sequences, or bytes of keys and values, as there may be. Its bytes, for the prompt and
  // max_tokens or the rest of the context, are its own from here until it leaves.
  std::int64_t join(std::vector<std::int32_t> prompt, const GenerateOptions& options,
                    SequenceMemory memory = {});
  // A sequence leaves as it is; nothing more comes of it. Returns whether it was there.
  bool leave(std::int64_t sequence);

  // One step. Nothing, at once, where no sequence is there; otherwise what came, in the order of
  // joining: nothing of a sequence whose prompt is not yet taken in, several tokens where drafts
  // were right. A sequence that fails (logits
  // that are not finite; rows that the disk does not give) ends with kError, and the others go on.
  std::vector<DecodedToken> step();

  // Of prompts, from the next step on (DecoderOptions); answers are the same. Throws Error below 1.
  void set_prefill_tokens(std::int64_t tokens);

  // Since the beginning: drafts that were tried, and that were right.
  std::int64_t drafted_tokens() const;
  std::int64_t accepted_tokens() const;

  bool is_idle() const { return sequences() == 0; }
  std::int64_t sequences() const;
  std::int64_t cache_bytes() const;  // of the sequences that are there, and of what is kept
  // How many tokens of its prompt were there already when it joined; 0: it is not there.
  std::int64_t cached_tokens(std::int64_t sequence) const;
  // Absent: the sequence is not there, or its model reads no store.
  std::optional<std::uint64_t> pool_version(std::int64_t sequence) const;

  const Llama& model() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace memlayers
