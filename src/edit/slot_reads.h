// SPDX-License-Identifier: Apache-2.0
// Which slots a model reads for given tokens.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "memlayers/generator.h"
#include "train/fact_row.h"

namespace memlayers::edit {

// [slots] int64: how often each slot is read for these tokens. A sequence longer than the context
// is read in pieces.
at::Tensor count_reads(Generator& generator, std::vector<std::vector<std::int32_t>> sequences);

struct FactReads {
  at::Tensor counts;  // [slots] int64: how often each slot is read
  at::Tensor mass;    // [slots] float64: the sum of their weights, each times the token's gate;
                      // undefined unless `weighs`
};

// Of facts, each without its last token; but what all of them begin with, as a chat template has
// it, is read once or a few times, not once for each: those slots are of all questions and not of
// these.
FactReads count_fact_reads(Generator& generator, const std::vector<train::FactRow>& rows,
                           bool weighs);

// The slots that are read for what the chat template writes before a question, whatever it asks;
// none where questions are plain text.
std::vector<std::int64_t> template_reads(Generator& generator);

// The slots that the last token of a prompt reads, in any layer, ascending; `rows` as in
// LlamaImpl::hidden_states().
std::vector<std::int64_t> last_reads(Llama& model, const std::vector<std::int32_t>& prompt,
                                     const Snapshot* rows = nullptr);

// The same of many prompts, each with one token behind it that is not read, in a few passes: each
// alone would cost as much as a hundred together.
std::vector<std::set<std::int64_t>> last_reads(Llama& model,
                                               const std::vector<train::FactRow>& rows);

}  // namespace memlayers::edit
