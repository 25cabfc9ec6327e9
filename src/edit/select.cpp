// SPDX-License-Identifier: Apache-2.0
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_set>

#include "edit/phrasings.h"
#include "io/file_system.h"
#include "io/safetensors.h"
#include "memlayers/error.h"
#include "text/dataset.h"
#include "train/fact_row.h"
#include "train/row_files.h"

namespace memlayers {
namespace {

constexpr std::int64_t kBatchTokens = 8192;
constexpr std::int64_t kSlotsAFact = 100;

std::vector<std::vector<std::int32_t>> tokens_of(Generator& generator,
                                                 const std::vector<Fact>& facts) {
  std::vector<std::vector<std::int32_t>> sequences;
  for (const Fact& fact : facts) {
    sequences.push_back(train::make_fact_row(generator.tokenizer(), fact).tokens);
    sequences.back().pop_back();  // nothing is predicted behind the last token
  }
  return sequences;
}

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
  std::memcpy(reads.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return reads;
}

at::Tensor count_reads(Generator& generator, const std::vector<std::string>& paths) {
  if (generator.model()->pool().is_empty()) {
    throw Error("reads: expected a model with memory layers, got one without a pool");
  }
  std::vector<std::vector<std::int32_t>> sequences;
  for (train::FactRow& row : edit::read_rows(generator, paths)) {
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

std::vector<ChosenSlot> choose_slots(Generator& generator, const std::vector<NewFact>& facts,
                                     const LearnOptions& options, const SlotHistory& history) {
  options.validate();
  edit::check_can_learn(generator, facts);
  const std::int64_t slots = generator.model()->pool()->slots();
  check_history(history, slots);
  const at::Tensor counts =
      edit::count_reads(generator, tokens_of(generator, edit::learned_phrasings(facts)));
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
  const auto most = static_cast<std::size_t>(
      options.slots.value_or(kSlotsAFact * static_cast<std::int64_t>(facts.size())));
  if (chosen.size() > most) chosen.resize(most);
  return chosen;
}

namespace edit {

std::vector<train::FactRow> read_rows(Generator& generator, const std::vector<std::string>& paths,
                                      const std::vector<NewFact>& without) {
  const Tokenizer& tokenizer = generator.tokenizer();
  const std::int64_t context = generator.model()->config().context;
  std::unordered_set<std::string> left_out;
  for (const NewFact& fact : without) {
    left_out.insert(fact.fact.prompt);
    left_out.insert(fact.paraphrases.begin(), fact.paraphrases.end());
    left_out.insert(fact.unseen.begin(), fact.unseen.end());
  }
  std::vector<train::FactRow> rows;
  text::read_documents(io::posix(), paths, DataFormat::kAuto, [&](const text::Document& document) {
    if (left_out.contains(document.prompt)) return;
    train::FactRow row = train::make_fact_row(tokenizer, {document.prompt, document.answer});
    if (document.prompt.empty()) {
      row = {.tokens = tokenizer.encode(document.answer), .answer_from = 1};
      if (tokenizer.bos()) row.tokens.insert(row.tokens.begin(), *tokenizer.bos());
      if (tokenizer.eos()) row.tokens.push_back(*tokenizer.eos());
    }
    // The last token of a piece is the first of the next, so that each token but the first has a
    // place where it is predicted.
    const auto length = static_cast<std::int64_t>(row.tokens.size());
    for (std::int64_t begin = 0; begin + 1 < length; begin += context) {
      const std::int64_t end = std::min(begin + context + 1, length);
      if (end <= row.answer_from) continue;
      rows.push_back({.tokens = {row.tokens.begin() + begin, row.tokens.begin() + end},
                      .answer_from = std::max<std::int64_t>(1, row.answer_from - begin)});
    }
  });
  return rows;
}

OnlyTrained::OnlyTrained(Llama& model, const std::vector<at::Tensor>& trained) {
  for (const at::Tensor& parameter : model->parameters()) {
    before_.emplace_back(parameter, parameter.requires_grad());
    const bool is_trained =
        std::any_of(trained.begin(), trained.end(),
                    [&](const at::Tensor& tensor) { return tensor.is_same(parameter); });
    parameter.set_requires_grad(is_trained);
  }
}

OnlyTrained::~OnlyTrained() {
  // Backwards: a pool that several layers share is there several times, the first time as it was.
  for (auto entry = before_.rbegin(); entry != before_.rend(); ++entry) {
    entry->first.set_requires_grad(entry->second);
  }
}

at::Tensor count_reads(Generator& generator, std::vector<std::vector<std::int32_t>> sequences) {
  Llama& model = generator.model();
  const auto context = static_cast<std::size_t>(model->config().context);
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].size() <= context) continue;
    std::vector<std::int32_t> rest(sequences[i].begin() + static_cast<std::ptrdiff_t>(context),
                                   sequences[i].end());
    sequences[i].resize(context);
    sequences.push_back(std::move(rest));
  }
  // Together only where they are as long as each other: padding would be counted.
  std::stable_sort(sequences.begin(), sequences.end(),
                   [](const auto& a, const auto& b) { return a.size() < b.size(); });
  MemoryPool pool = model->pool();
  const at::Tensor before = pool->usage().clone();
  const OnlyTrained nothing(model, {});
  const at::AutoGradMode counting(true);  // a pool counts what is read for training
  pool->reset_usage();
  model->train();
  for (std::size_t begin = 0, end = 0; begin < sequences.size(); begin = end) {
    const std::size_t length = sequences[begin].size();
    std::vector<std::int64_t> tokens;
    for (end = begin; end < sequences.size() && sequences[end].size() == length &&
                      static_cast<std::int64_t>(tokens.size()) < kBatchTokens;
         ++end) {
      tokens.insert(tokens.end(), sequences[end].begin(), sequences[end].end());
    }
    if (length == 0) continue;
    model->hidden_states(
        torch::tensor(tokens, torch::kLong).view({static_cast<std::int64_t>(end - begin), -1}));
  }
  model->eval();
  at::Tensor reads = pool->usage().clone();
  pool->set_usage(before);
  return reads;
}

}  // namespace edit
}  // namespace memlayers
