// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>

#include "dist/collectives.h"
#include "io/folder.h"
#include "memlayers/checkpoint.h"
#include "memlayers/error.h"
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

  const std::optional<train::ResumePoint> resume =
      train::find_resume_point(files, config, processes.get());
  std::optional<std::string> checkpoint;
  if (resume) {
    checkpoint = resume->folder;
    damaged = resume->damaged;
    train::check_same_model(files, config, resume->folder);
  }
  TrainConfig sources = config;  // what is saved with a checkpoint keeps its "-"
  prepare_tokenizer(sources, checkpoint);
  make_model(resume);
  const std::int64_t context = std::min(config.model.context, parts.model->config().context);
  // The first process makes the cache, from which the others read.
  if (!is_first()) dist::barrier(processes->world());
  data = std::make_unique<train::TrainingData>(files, sources, *parts.tokenizer, context,
                                               callbacks.tokenizing);
  if (is_first()) dist::barrier(processes->world());
  make_optimizers(resume);
  setup.context = context;
  describe();
  check_sample_prompts();
  dist::barrier(processes->world());  // while the wait may still be a long one
  prepared = true;
}

// Standard input and the training of a tokenizer are the first process's: the others read what it
// writes to the cache folder.
void Trainer::Run::prepare_tokenizer(TrainConfig& sources,
                                     const std::optional<std::string>& checkpoint) {
  if (is_first()) {
    sources.data = train::spool_standard_input(files, config);
    parts.tokenizer = train::make_tokenizer(files, sources, checkpoint);
  }
  if (processes->is_alone()) return;
  for (std::vector<std::string>* paths : {&sources.data.train, &sources.data.valid}) {
    for (std::string& path : *paths) path = dist::broadcast(processes->world(), path);
  }
  const bool is_trained_here = !checkpoint && !config.data.tokenizer && !config.init;
  if (is_trained_here && is_first()) {
    const std::string folder = io::join(train::cache_folder(config), "tokenizer");
    io::make_folders(files, folder);
    const std::string path = io::join(folder, parts.tokenizer->file_name());
    io::write_atomic(files, path, parts.tokenizer->file_bytes());
    sources.data.tokenizer = path;
  }
  if (is_trained_here) {
    sources.data.tokenizer =
        dist::broadcast(processes->world(), sources.data.tokenizer.value_or(""));
  }
  if (!is_first()) parts.tokenizer = train::make_tokenizer(files, sources, checkpoint);
}

void Trainer::Run::make_model(const std::optional<train::ResumePoint>& resume) {
  const auto seed = static_cast<std::uint64_t>(config.train.seed);
  if (resume) {
    train::reading_checkpoint(files, resume->folder, [&] {
      parts.model = load_model(resume->folder, config.train.pool_folder, processes->group());
    });
  } else if (config.init) {
    parts.model = load_model(resolve_model_folder(*config.init), config.train.pool_folder,
                             processes->group());
  } else {
    parts.model = Llama(train::fit_to_tokenizer(config.model, *parts.tokenizer), seed,
                        config.train.pool_folder, processes->group());
  }
  train::fit_to_tokenizer(parts.model->config(), *parts.tokenizer);  // throws where it does not
  parts.model->open_keys();  // a grown memory is trained as a whole
  parts.model->train();
}

void Trainer::Run::make_optimizers(const std::optional<train::ResumePoint>& resume) {
  const TrainStepConfig& t = config.train;
  dense = std::make_unique<DenseAdamW>(
      parts.model->dense_parameters(),
      DenseAdamW::Options{
          .beta1 = t.beta1, .beta2 = t.beta2, .eps = t.eps, .weight_decay = t.weight_decay});
  parts.dense = dense.get();
  if (!processes->is_alone()) {
    const auto& parallel = config.parallel;
    gradients = std::make_unique<train::GradientSum>(
        processes->shared_world(), parts.model->dense_parameters(),
        train::GradientSum::Options{.bucket_mb = parallel.bucket_mb,
                                    .type = nn::element_type(parallel.gradient_dtype)});
  }
  if (!parts.model->pool().is_empty()) {
    rows = std::make_unique<RowAdamW>(
        parts.model->pool(), RowAdamW::Options{.lr = t.value_lr,
                                               .beta1 = t.value_beta1,
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
    notice("the data or how they are cut changed since " + resume->folder + " (" + state.data +
           "; now " + order + "): going on from the beginning of a pass");
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
    const auto tokens = static_cast<std::int64_t>(parts.tokenizer->encode(prompt).size()) + 1;
    if (tokens >= parts.model->config().context) {
      throw Error("train.sample_prompts: \"" + prompt + "\" has " + std::to_string(tokens) +
                  " tokens, wanted fewer than the context of " +
                  std::to_string(parts.model->config().context));
    }
  }
}

}  // namespace memlayers
