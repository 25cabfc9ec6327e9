// SPDX-License-Identifier: Apache-2.0
// Teaching a trained model new facts by changing a few rows of its pool and nothing else
// (docs/editing.md). The rows are those that the facts read often and everything else seldom, as in
// [SPARSE25].
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "memlayers/evaluate.h"
#include "memlayers/store.h"

namespace memlayers {

struct NewFact {
  Fact fact;
  std::vector<std::string> paraphrases = {};  // other prompts for the same answer: learned too
  std::vector<std::string> unseen =
      {};                    // more of them, not learned: they measure what carries over
  std::string subject = {};  // what phrasings call {subject}; empty: none was given
};

// JSONL: "prompt", "answer", and where wanted the lists "paraphrases" and "unseen" and a "subject".
// Throws Error naming file, line and field, and for a file without a fact.
std::vector<NewFact> read_new_facts(const std::string& path);
// The same of the lines of a text; `name` begins complaints, in place of the file.
std::vector<NewFact> parse_new_facts(std::string_view jsonl, const std::string& name);
// Gives facts that have no paraphrases (no unseen phrasings) those of a file, a phrasing a line, in
// which {prompt} and {subject} stand for the fact's. Throws Error naming file and line for one
// without either, and for a fact without the subject that is asked for.
enum class PhrasingUse { kLearned, kUnseen };
void add_phrasings(std::vector<NewFact>& facts, const std::string& path, PhrasingUse use);
std::vector<Fact> unseen_phrasings(const std::vector<NewFact>& facts);

// How slots are ranked, by tf, a slot's share of the new facts' reads, and its reads before.
enum class SlotSelection {
  kTfIdf,    // tf * log((N + 1) / (n + 1)), n of the N reads before
  kKl,       // tf * log(tf / q), q = (n + 1) / (N + slots): its part of the divergence
  kGuarded,  // as kTfIdf, without the slots that earlier patches wrote
};
const char* selection_name(SlotSelection selection);  // "tfidf", "kl", "guarded"

// What the pool's slots were used for before.
struct SlotHistory {
  at::Tensor reads;                        // [slots] int64: how often each was read; not all zero
  std::vector<std::int64_t> patched = {};  // slots that patches wrote; kGuarded leaves them alone
};

// The reads that training counted, of a model folder's usage.safetensors (`reads` I64 [slots]);
// none where it has no such file. Throws Error for a file that is something else.
std::optional<at::Tensor> read_usage(const std::string& model_folder, std::int64_t slots);
// [slots] int64: how often the model reads each slot in these files (text, or facts as JSONL), or
// in a page of prose where there are none; one forward pass.
at::Tensor count_reads(Generator& generator, const std::vector<std::string>& paths);
// Ascending: the slots whose rows are a patch's, not the base's.
std::vector<std::int64_t> patched_slots(const Snapshot& pool);

// What a model's slots were used for before: what its folder's usage.safetensors tells, or what it
// reads along `background`; a page of prose where there is none and its memory has output scales
// (docs/retrofit.md). For kGuarded also the slots that patches of the folder's pool wrote. Throws
// Error where nothing tells.
SlotHistory read_history(Generator& generator, const std::string& model_folder,
                         const std::vector<std::string>& background, SlotSelection selection);
// Whether read_history() needs a background.
bool needs_background(const ModelConfig& config, const std::string& model_folder);

struct LearnOptions {
  SlotSelection selection = SlotSelection::kTfIdf;
  // Rows that may change, at most. Absent: 100 a fact, and in a model whose memory has output
  // scales all that the facts read (docs/retrofit.md).
  std::optional<std::int64_t> slots = {};
  // The rows that may change make up this share of what the facts read, each read by its weight
  // times the token's gate; 1: all of it. Less makes smaller patches.
  double coverage = 1;
  PoolOptimizer optimizer = PoolOptimizer::kAdamW;  // or kSgd
  // Absent: 3e-3, and 2e-2 in a model whose memory has output scales (docs/retrofit.md).
  std::optional<double> lr = {};
  std::int64_t steps = 600;  // at most: learning ends when all is recalled
  std::int64_t batch = 32;   // phrasings of facts a step
  // Steps from one test of all facts to the next, which is left out as long as the phrasings that
  // were trained since are mostly not recalled.
  std::int64_t check_every = 10;
  double enough = 1;    // share of the phrasings that is to be recalled
  double held_out = 0;  // share of the phrasings that is not learned, but tested with the others:
                        // learning ends before they fall, with the rows that recalled most of them
  std::uint64_t seed = 0;  // of the order of the facts
  // Files (text, or facts as JSONL) of what is to stay: a step takes `rehearsal` of their sequences
  // for each phrasing, from each file in proportion to size^0.75, and adds `rehearsal_weight` times
  // the mean, over their predictions, of what these have lost: a fact's answer its cross entropy,
  // text KL(before || now). Sequences that begin with a prompt of the new facts are left out.
  std::vector<std::string> rehearse = {};
  // JSONL with "prompt": what else the model is asked; its own greedy answers, of at most
  // `answer_tokens`, are rehearsed as text is.
  std::vector<std::string> questions = {};
  std::int64_t answer_tokens = 24;
  std::int64_t piece = 128;  // tokens of a piece of text that is rehearsed, at most
  // 0: none. Absent: 3, and 0.5 in a model whose memory has output scales.
  std::optional<double> rehearsal = {};
  // Times the mean of |memory's output|^2 / |feed-forward's|^2 along text of `rehearse`, or a page
  // of prose, in the loss. Only where the memory stands beside the feed-forward. Absent: 20 in a
  // model whose memory has output scales, else 0.
  std::optional<double> penalty = {};
  // Steps behind the last, of what is rehearsed: the learning rate falls to 0, and what learning
  // has shaken settles. Absent: 200, and in a model whose memory has output scales as many as it
  // learned for, if those are fewer.
  std::optional<std::int64_t> settle = {};
  std::int64_t most_settling() const { return settle.value_or(200); }
  // Facts of `rehearse` that are not recalled when learning ends are rehearsed in each step of
  // settling too, half a batch of them beside the others (what interferes most: Aljundi et al.
  // 2019, arXiv 1908.04742); where more than 1 - `enough` of all, and more than one in a hundred,
  // are not yet, settling comes again, at most so many times. 0: they are not looked for. Absent:
  // 2 in a model whose memory has output scales, else 0.
  std::optional<std::int64_t> repairs = {};
  double rehearsal_weight = 10;
  std::int64_t warmup = 0;  // steps in which the learning rate rises

  void validate() const;  // throws Error naming the first wrong field
};

struct ChosenSlot {
  std::int64_t slot = 0, reads = 0, reads_before = 0;  // by the new facts, and before
  double score = 0;
};

// The slots that learn() would train, the best first: at most as many as options.slots, fewer where
// the facts read no more that stand out. Throws Error as learn().
std::vector<ChosenSlot> choose_slots(Generator& generator, const std::vector<NewFact>& facts,
                                     const LearnOptions& options, const SlotHistory& history);

struct LearnProgress {
  std::int64_t step = 0, recalled = 0, phrasings = 0;  // recalled of phrasings when last tested
  std::int64_t held_out_recalled = 0, held_out = 0;    // of those that are not learned
  std::int64_t earlier_recalled = 0, earlier = 0;  // of the facts that are rehearsed, if looked for
  std::optional<double> loss = {};                 // of the step's batch; none before the first
};

struct LearnResult {
  Patch patch;  // rows that differ from before only; none where all was known already
  std::int64_t recalled = 0, phrasings = 0;  // of the facts' prompts and their paraphrases
  std::int64_t steps = 0;
  std::int64_t slots = 0;  // that were trained
  // Phrasings of the facts that were rehearsed, of which at most as many are looked at as were
  // learned; 0 of 0 where options.repairs is 0.
  std::int64_t earlier_recalled = 0, earlier = 0;
};

// Trains the rows of choose_slots() until every fact and paraphrase is recalled by greedy decoding,
// or for options.steps steps, and what is rehearsed for options.settle more. Loss is on answers
// only. All other rows and all weights keep their bits. Afterwards the model's pool holds the
// patch's rows; its files are untouched. The generator's model must hold its rows itself
// (load_model()). The same input gives the same rows.
//
// Throws Error for a model without a pool or with rows of few bits, no facts, one that is longer
// than the context, a history that does not fit, where no slot is left to choose, and for a loss or
// rows that are not finite (rows are then undefined).
LearnResult learn(Generator& generator, const std::vector<NewFact>& facts,
                  const LearnOptions& options, const SlotHistory& history,
                  const std::function<void(const LearnProgress&)>& progress = {});

}  // namespace memlayers
