// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>

#include "dist/collectives.h"
#include "io/folder.h"
#include "io/model_source.h"
#include "io/run_folder.h"
#include "io/shown.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
#include "nn/free_memory.h"
#include "nn/table.h"
#include "train/trainer_run.h"

namespace memlayers {

void Trainer::Run::prepare() {
  if (prepared) return;
  // Torch's own default knows OMP_NUM_THREADS and physical cores; an earlier run may have changed
  // it.
  static const int default_threads = at::get_num_threads();
  processes = std::make_unique<train::Processes>(world(), config.parallel);
  const train::LongWait long_wait(*processes);
  if (!is_first()) {  // who does not talk to the user
    const std::atomic<bool>* stop = callbacks.stop;
    callbacks = {};
    callbacks.stop = stop;
  }
  at::set_num_threads(config.train.threads > 0
                          ? static_cast<int>(config.train.threads)
                          : std::max(1, default_threads / processes->on_this_host()));
  torch::manual_seed(static_cast<std::uint64_t>(config.train.seed));
  processes->together([&] { take_lock(); });

  const std::optional<train::ResumePoint> resume =
      train::find_resume_point(files, config, processes.get());
  std::optional<std::string> checkpoint;
  if (resume) {
    checkpoint = resume->folder;
    damaged = resume->damaged;
    processes->together([&] { train::check_same_model(files, config, resume->folder); });
  }
  if (!config.data.across_documents) {
    config.data.across_documents = checkpoint && train::attends_across_documents(*checkpoint);
  }
  TrainConfig sources = config;  // what is saved with a checkpoint keeps its "-"
  prepare_tokenizer(sources, checkpoint);
  make_model(resume);
  const std::int64_t context = std::min(config.model.context, parts.model->config().context);
  const auto open_data = [&] {
    data = std::make_unique<train::TrainingData>(files, sources, *parts.tokenizer, context,
                                                 callbacks.tokenizing);
    for (const std::string& text : data->notices()) notice(text);
  };
  // The first process makes the cache, from which the others read.
  processes->together([&] {
    if (is_first()) open_data();
  });
  processes->together([&] {
    if (!is_first()) open_data();
  });
  nn::with_memory_for("[model], [memory]: optimizers", [&] { make_optimizers(resume); });
  setup.context = context;
  describe();
  processes->together([&] { check_sample_prompts(); });
  dist::barrier(processes->world());  // while the wait may still be a long one
  prepared = true;
}

// Before anything of the run folder is read: what is there is the other training's to change. A
// folder that is not there yet is made when there is something to write.
void Trainer::Run::take_lock() {
  if (!is_first() || lock != nullptr) return;
  const bool is_new = !prepared && !files.is_folder(config.out);
  if (is_new) return;
  try {
    lock = io::lock_run(files, config.out);
    const auto found = io::find_closed_checkpoints(files, config.out);
    if (prepared && saved.empty() && !found.empty()) {
      throw Error(found.back().path +
                  ": expected no checkpoint yet, found that of another training " +
                  "that began meanwhile; out names another folder");
    }
  } catch (const io::NoLocks& error) {
    notice(std::string(error.what()) + ": no other training may write to " + config.out);
  }
}

// Standard input and the training of a tokenizer are the first process's: the others read what it
// writes to the cache folder.
void Trainer::Run::prepare_tokenizer(TrainConfig& sources,
                                     const std::optional<std::string>& checkpoint) {
  const bool is_trained_here = !checkpoint && !config.data.tokenizer && !config.init;
  processes->together([&] {
    if (!is_first()) return;
    sources.data = train::spool_streams(files, config);
    parts.tokenizer = train::make_tokenizer(files, sources, checkpoint);
    if (!is_trained_here || processes->is_alone()) return;
    const std::string folder = io::join(train::cache_folder(config), "tokenizer");
    io::make_folders(files, folder);
    const std::string path = io::join(folder, parts.tokenizer->file_name());
    io::write_atomic(files, path, parts.tokenizer->file_bytes());
    sources.data.tokenizer = path;
  });
  if (processes->is_alone()) return;
  for (std::vector<std::string>* paths : {&sources.data.train, &sources.data.valid}) {
    for (std::string& path : *paths) path = dist::broadcast(processes->world(), path);
  }
  if (is_trained_here) {
    sources.data.tokenizer =
        dist::broadcast(processes->world(), sources.data.tokenizer.value_or(""));
  }
  processes->together([&] {
    if (!is_first()) parts.tokenizer = train::make_tokenizer(files, sources, checkpoint);
  });
}

void Trainer::Run::make_model(const std::optional<train::ResumePoint>& resume) {
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  if (resume) {
    train::reading_checkpoint(files, resume->folder, [&] {
      parts.model = load_model(resume->folder, config.train.pool_folder, processes->group());
    });
  } else if (config.init) {
    const std::string folder = resolve_model_folder(*config.init);
    processes->together([&] {  // what is wrong with its files; loading them sends messages
      const auto& weights = io::open_model_source(files, folder)->config().weights;
      if (!weights) return;
      throw Error(folder + ": expected weights of type float32 or bfloat16 to train, got " +
                  row_type_name(*weights));
    });
    parts.model = load_model(folder, config.train.pool_folder, processes->group());
  } else {
    processes->together([&] {
      const ModelConfig model = train::fit_to_tokenizer(config.model, *parts.tokenizer);
      parts.model = nn::with_memory_for("[model], [memory]", [&] {
        return Llama(model, seed, config.train.pool_folder, processes->group());
      });
    });
  }
  processes->together([&] { train::fit_to_tokenizer(parts.model->config(), *parts.tokenizer); });
  parts.model->open_keys();  // a grown memory is trained as a whole
  parts.model->train();
}

namespace {

// All but sub-keys that stay as they were drawn.
std::vector<std::pair<std::string, at::Tensor>> trained(const Llama& model) {
  auto parameters = model->dense_parameters();
  std::erase_if(parameters, [](const auto& one) { return !one.second.requires_grad(); });
  return parameters;
}

}  // namespace

void Trainer::Run::make_optimizers(const std::optional<train::ResumePoint>& resume) {
  const TrainStepConfig& t = config.train;
  dense = std::make_unique<DenseAdamW>(
      trained(parts.model),
      DenseAdamW::Options{
          .beta1 = t.beta1, .beta2 = t.beta2, .eps = t.eps, .weight_decay = t.weight_decay});
  parts.dense = dense.get();
  gradients = std::make_unique<train::GradientSum>(
      processes->shared_world(), trained(parts.model),
      train::GradientSum::Options{.bucket_mb = config.parallel.bucket_mb,
                                  .type = nn::element_type(config.parallel.gradient_dtype)});
  if (!parts.model->pool().is_empty()) {
    rows = std::make_unique<RowOptimizer>(
        parts.model->pool(), RowOptimizer::Options{.beta1 = t.value_beta1,
                                                   .beta2 = t.value_beta2,
                                                   .eps = t.eps,
                                                   .weight_decay = t.value_weight_decay,
                                                   .kind = t.value_optimizer,
                                                   .master_rows = t.master_rows,
                                                   .seed = static_cast<std::uint64_t>(t.seed)});
    parts.rows = rows.get();
  }
  state.data = data->order();
  if (!resume) return;

  train::reading_checkpoint(files, resume->folder, [&] {
    train::load_optimizers(files, resume->folder, parts, processes.get());
  });
  const std::string order = state.data;
  state = resume->state;
  saved = resume->folder;
  if (state.data != order) {
    notice("the data or how they are cut changed since " + resume->folder + " (" +
           io::shown(state.data) + "; now " + order + "): going on from the beginning of a pass");
    state.data = order;
    state.position.batch = 0;
  }
  data->batches().seek(state.position);
  notice("resumed from " + resume->folder + " at step " + std::to_string(state.step));
}

void Trainer::Run::describe() {
  const ModelConfig& model = parts.model->config();
  setup.model = model;
  for (const auto& [name, parameter] : parts.model->dense_parameters()) {
    auto& count = name.find(".memory.") == std::string::npos ? setup.dense_parameters
                                                             : setup.memory_parameters;
    count += parameter.numel();
  }
  if (rows != nullptr) {
    setup.pool_rows = parts.model->pool()->slots();
    setup.pool_width = parts.model->pool()->width();
  }
  setup.flops_per_token = count_flops(model, setup.context);
  setup.train_documents = data->train().documents();
  setup.train_tokens = data->train().tokens();
  if (data->valid() != nullptr) {
    setup.valid_documents = data->valid()->documents();
    setup.valid_tokens = data->valid()->tokens();
  }
  setup.batches_per_epoch = data->batches_in_epoch(state.position.epoch);
  setup.first_step = state.step;
  setup.total_steps = data->total_steps();
  setup.threads = at::get_num_threads();
  setup.processes = processes->count();
}

// Now, not at the first sample some hours later.
void Trainer::Run::check_sample_prompts() const {
  if (config.train.sample_every == 0) return;
  for (const std::string& prompt : config.train.sample_prompts) {
    const auto tokens = static_cast<std::int64_t>(parts.tokenizer->encode_prompt(prompt).size());
    if (tokens == 0) {
      throw Error("train.sample_prompts: " + io::quote(prompt) +
                  " has no token, wanted at least one");
    }
    if (tokens >= parts.model->config().context) {
      throw Error("train.sample_prompts: " + io::quote(prompt) + " has " + std::to_string(tokens) +
                  " tokens, wanted fewer than the context of " +
                  std::to_string(parts.model->config().context));
    }
  }
}

}  // namespace memlayers
