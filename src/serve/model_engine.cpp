// SPDX-License-Identifier: Apache-2.0
#include "serve/model_engine.h"

#include <filesystem>
#include <mutex>
#include <utility>

#include "generate/sequence.h"
#include "memlayers/checkpoint.h"
#include "memlayers/confidence.h"
#include "serve/model_memory.h"
#include "serve/pool_views.h"
#include "serve/scheduler.h"
#include "serve/weights_digest.h"

namespace memlayers::serve {
namespace {

std::string name_of(const std::string& folder, const EngineOptions& options) {
  if (!options.model_id.empty()) return options.model_id;
  const std::filesystem::path path = std::filesystem::absolute(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

bool has_memory(const Llama& model) { return !model->pool().is_empty(); }

class ModelEngineImpl final : public ModelEngine {
 public:
  ModelEngineImpl(const std::string& model_folder, const std::string& folder,
                  const EngineOptions& options)
      : id_(name_of(model_folder, options)),
        generator_(Generator::load(folder, options.store)),
        template_(ChatTemplate::find(generator_.tokenizer())),
        views_(generator_.model()->pool(), options.held_versions),
        scheduler_(generator_.model(), generator_.shared_tokenizer(), views_, options) {
    if (has_memory(generator_.model())) {
      generator_.ask_by_its_template();  // facts, as learn and explain ask them
      if (options.tells_confidence || options.gate_below) {
        scheduler_.judge_by(confidence_judge(generator_), options.gate_below);
      }
      memory_ = std::make_unique<ModelMemory>(folder, generator_, views_, scheduler_, options);
    }
  }
  ~ModelEngineImpl() override { stop(); }
  ModelEngineImpl(const ModelEngineImpl&) = delete;
  ModelEngineImpl& operator=(const ModelEngineImpl&) = delete;

  const Tokenizer& tokenizer() const override { return generator_.tokenizer(); }
  const ChatTemplate* chat_template() const override { return template_ ? &*template_ : nullptr; }
  const std::string& model_id() const override { return id_; }
  std::int64_t context() const override { return scheduler_.context(); }
  std::string weights_digest() const override {
    std::call_once(digested_, [&] { digest_ = serve::weights_digest(generator_.model()); });
    return digest_;
  }
  std::vector<std::int32_t> end_tokens() const override {
    const auto ends = generate::end_tokens(generator_.model()->config(), generator_.tokenizer());
    return {ends.begin(), ends.end()};
  }
  std::vector<std::int64_t> submit(Scheduler::Jobs jobs) override {
    return scheduler_.submit(std::move(jobs));
  }
  void cancel(const std::vector<std::int64_t>& jobs) override { scheduler_.cancel(jobs); }
  api::EngineCounters counters() const override { return scheduler_.counters(); }
  api::Memory* memory() override { return memory_.get(); }

  void drain() override { scheduler_.drain(); }
  bool wait_until_idle(double seconds) override { return scheduler_.wait_until_idle(seconds); }
  void stop() override {
    scheduler_.stop();
    if (memory_ != nullptr) memory_->stop();
  }

 private:
  const std::string id_;
  mutable Generator generator_;
  const std::optional<ChatTemplate> template_;
  PoolViews views_;
  Scheduler scheduler_;
  std::unique_ptr<ModelMemory> memory_;
  mutable std::once_flag digested_;
  mutable std::string digest_;
};

}  // namespace

std::unique_ptr<ModelEngine> ModelEngine::open(const std::string& model_folder,
                                               const EngineOptions& options) {
  options.validate();
  return std::make_unique<ModelEngineImpl>(model_folder, resolve_model_folder(model_folder),
                                           options);
}

}  // namespace memlayers::serve
