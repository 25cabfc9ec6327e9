// SPDX-License-Identifier: Apache-2.0
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "edit/phrasings.h"
#include "edit/prose.h"
#include "edit/slot_reads.h"
#include "io/file_system.h"
#include "io/mapped_read.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "train/fact_row.h"
#include "train/row_state_files.h"

namespace memlayers {
namespace {

constexpr std::int64_t kSlotsAFact = 100;

double score_of(const ChosenSlot& slot, SlotSelection selection, double total, double total_before,
                double slots) {
  const double tf = static_cast<double>(slot.reads) / total;
  const double before = static_cast<double>(slot.reads_before) + 1;
  if (selection == SlotSelection::kKl) {
    return tf * std::log(tf / (before / (total_before + slots)));
  }
  return tf * std::log((total_before + 1) / before);
}

void check_history(const SlotHistory& history, std::int64_t slots) {
  const at::Tensor& reads = history.reads;
  if (!reads.defined() || reads.dim() != 1 || reads.size(0) != slots ||
      reads.scalar_type() != torch::kLong) {
    throw Error("learn: reads before: expected " + std::to_string(slots) +
                " whole numbers, one a slot, got something else");
  }
  if (reads.min().item<std::int64_t>() < 0 || reads.max().item<std::int64_t>() == 0) {
    throw Error("learn: reads before: expected counts, some above 0, got " +
                std::string(reads.min().item<std::int64_t>() < 0 ? "one below 0" : "only zeros"));
  }
}

// Bars the slots behind those, by mass [slots], that make up `coverage` of it.
void bar_the_rest(const at::Tensor& mass, double coverage, std::vector<bool>& is_barred) {
  const auto [most, slots] = mass.sort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
  const at::Tensor before = most.cumsum(0) - most;
  const double enough = coverage * mass.sum().item<double>();
  const std::int64_t kept = (before < enough).sum().item<std::int64_t>();
  const std::int64_t* slot = slots.const_data_ptr<std::int64_t>();
  for (std::int64_t i = kept; i < slots.numel(); ++i) is_barred[slot[i]] = true;
}

}  // namespace

const char* selection_name(SlotSelection selection) {
  switch (selection) {
    case SlotSelection::kTfIdf:
      return "tfidf";
    case SlotSelection::kKl:
      return "kl";
    case SlotSelection::kGuarded:
      break;
  }
  return "guarded";
}

std::optional<at::Tensor> read_usage(const std::string& model_folder, std::int64_t slots) {
  const std::string path = io::join(model_folder, train::kUsageFile);
  if (!io::posix().exists(path)) return std::nullopt;
  const io::SafetensorsFile file = io::SafetensorsFile::open(io::posix(), path);
  const io::TensorView& view = file.at("reads");
  if (view.type != io::ElementType::kI64 || view.shape != std::vector<std::int64_t>{slots}) {
    throw Error(path + ": reads: expected I64 [" + std::to_string(slots) + "], got " +
                std::string(io::element_name(view.type)) + " of " +
                std::to_string(view.shape.size()) + " dimensions and " +
                std::to_string(view.bytes.size()) + " bytes");
  }
  at::Tensor reads = torch::empty({slots}, torch::kLong);
  io::copy_mapped(reads.mutable_data_ptr(), view.bytes);
  if (const auto least = reads.min().item<std::int64_t>(); least < 0) {
    throw Error(path + ": reads: expected counts of at least 0, got " + std::to_string(least));
  }
  return reads;
}

at::Tensor count_reads(Generator& generator, const std::vector<std::string>& paths) {
  if (generator.model()->pool().is_empty()) {
    throw Error("reads: expected a model with memory layers, got one without a pool");
  }
  std::vector<std::vector<std::int32_t>> sequences;
  for (train::FactRow& row :
       paths.empty() ? edit::prose_rows(generator) : edit::read_rows(generator, paths)) {
    row.tokens.pop_back();  // nothing is predicted behind the last token
    sequences.push_back(std::move(row.tokens));
  }
  return edit::count_reads(generator, std::move(sequences));
}

std::vector<std::int64_t> patched_slots(const Snapshot& pool) {
  std::vector<std::int64_t> slots;
  for (std::int64_t slot = 0; slot < pool.rows(); ++slot) {
    if (pool.is_overridden(slot)) slots.push_back(slot);
  }
  return slots;
}

bool needs_background(const ModelConfig& config, const std::string& model_folder) {
  return !edit::is_scaled(config) && !io::posix().exists(io::join(model_folder, train::kUsageFile));
}

SlotHistory read_history(Generator& generator, const std::string& model_folder,
                         const std::vector<std::string>& background, SlotSelection selection) {
  SlotHistory history;
  if (const auto usage = read_usage(model_folder, generator.model()->pool()->slots())) {
    history.reads = *usage;
  } else if (background.empty() && needs_background(generator.model()->config(), model_folder)) {
    throw Error(model_folder +
                ": expected usage.safetensors, the reads that training counted, or background "
                "files (--background) to count those of, got neither");
  } else {
    history.reads = count_reads(generator, background);
  }
  if (selection == SlotSelection::kGuarded) {
    history.patched = patched_slots(StoreReader::open(io::join(model_folder, "pool")).snapshot());
  }
  return history;
}

std::vector<ChosenSlot> choose_slots(Generator& generator, const std::vector<NewFact>& facts,
                                     const LearnOptions& options, const SlotHistory& history) {
  options.validate();
  edit::check_can_learn(generator, facts);
  const std::int64_t slots = generator.model()->pool()->slots();
  check_history(history, slots);
  std::vector<train::FactRow> rows;
  for (const Fact& fact : edit::learned_phrasings(facts)) {
    rows.push_back(train::make_fact_row(generator, fact));
  }
  const auto [counts, mass] = edit::count_fact_reads(generator, rows, options.coverage < 1);
  const at::Tensor reads_before = history.reads.cpu().contiguous();
  const std::int64_t* reads = counts.const_data_ptr<std::int64_t>();
  const std::int64_t* before = reads_before.const_data_ptr<std::int64_t>();
  const double total = static_cast<double>(counts.sum().item<std::int64_t>());
  const double total_before = static_cast<double>(reads_before.sum().item<std::int64_t>());
  std::vector<bool> is_barred(slots);
  if (options.selection == SlotSelection::kGuarded) {
    for (const std::int64_t slot : history.patched) {
      if (slot < slots) is_barred[slot] = true;  // a store may have more rows than the model reads
    }
  }
  // Every question reads these: a row of theirs would be trained by all facts at once, answer for
  // what nobody asked, and grow until rounding decides what else is read. In a pool so small that
  // they are a good part of it, all rows are of all questions.
  const std::vector<std::int64_t> of_template = edit::template_reads(generator);
  if (4 * static_cast<std::int64_t>(of_template.size()) <= slots) {
    for (const std::int64_t slot : of_template) is_barred[slot] = true;
  }
  if (mass.defined()) bar_the_rest(mass, options.coverage, is_barred);
  std::vector<ChosenSlot> chosen;
  for (std::int64_t slot = 0; slot < slots; ++slot) {
    if (reads[slot] == 0 || is_barred[slot]) continue;
    ChosenSlot candidate{.slot = slot, .reads = reads[slot], .reads_before = before[slot]};
    candidate.score =
        score_of(candidate, options.selection, total, total_before, static_cast<double>(slots));
    if (candidate.score > 0) chosen.push_back(candidate);
  }
  if (chosen.empty()) {
    throw Error("learn: expected a slot that the new facts read and that may change, found none");
  }
  std::stable_sort(chosen.begin(), chosen.end(),
                   [](const ChosenSlot& a, const ChosenSlot& b) { return a.score > b.score; });
  std::optional<std::int64_t> most = options.slots;
  // What is read for a word differs with the phrasing. In a model that learned no text with its
  // memory, other phrasings than those taught find the fact only if all of what these read knows
  // it.
  if (!most && !edit::is_scaled(generator.model()->config())) {
    most = kSlotsAFact * static_cast<std::int64_t>(facts.size());
  }
  if (most && std::cmp_less(*most, chosen.size())) chosen.resize(static_cast<std::size_t>(*most));
  return chosen;
}

}  // namespace memlayers
