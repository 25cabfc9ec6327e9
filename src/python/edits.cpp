// SPDX-License-Identifier: Apache-2.0
// The verbs that change or explain a model, from Python: learn, grow, explain. Options and answers
// are JSON, whose fields are named as the command's. All throw Error (RuntimeError in Python).
#include <torch/custom_class.h>

#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "edit/explanation_json.h"
#include "io/file_system.h"
#include "io/json.h"
#include "io/json_field.h"
#include "memlayers/checkpoint.h"
#include "memlayers/edit.h"
#include "memlayers/error.h"
#include "memlayers/explain.h"
#include "memlayers/grow.h"
#include "python/options.h"

namespace memlayers::python {
namespace {

using Json = nlohmann::ordered_json;

LearnOptions learn_options(const io::JsonField& given) {
  given.expect_only({"background", "selection", "slots", "coverage", "optimizer", "lr", "steps",
                     "batch", "check_every", "seed", "rehearsal", "settle", "repairs",
                     "rehearsal_weight", "chat"});
  LearnOptions options;
  const std::string selection = given.string_or("selection", "tfidf");
  if (selection == "kl") {
    options.selection = SlotSelection::kKl;
  } else if (selection == "guarded") {
    options.selection = SlotSelection::kGuarded;
  } else if (selection != "tfidf") {
    given.at("selection").fail("tfidf, kl or guarded");
  }
  const std::string optimizer = given.string_or("optimizer", "adam");
  if (optimizer == "sgd") {
    options.optimizer = PoolOptimizer::kSgd;
  } else if (optimizer != "adam") {
    given.at("optimizer").fail("adam or sgd");
  }
  read_count(given, "slots", options.slots);
  read_number(given, "coverage", options.coverage);
  read_number(given, "lr", options.lr);
  read_count(given, "steps", options.steps);
  read_count(given, "batch", options.batch);
  read_count(given, "check_every", options.check_every);
  read_number(given, "rehearsal", options.rehearsal);
  read_count(given, "settle", options.settle);
  read_count(given, "repairs", options.repairs);
  if (const auto seed = given.find("seed")) options.seed = seed->bits();
  read_number(given, "rehearsal_weight", options.rehearsal_weight);
  read_texts(given, "background", options.rehearse);
  options.validate();
  return options;
}

struct Stopped {};  // the caller wants no more of it

// Learns in a thread of its own, so that whoever waits can be told how far it is, and stop it.
class Learning : public torch::CustomClassHolder {
 public:
  Learning(const std::string& model, const std::string& facts, const std::string& options) {
    const nlohmann::json parsed = io::parse_json(options, "options");
    const LearnOptions checked = learn_options(io::JsonField(parsed, "options"));
    const std::vector<NewFact> list = read_new_facts(facts);
    is_chat_ = io::JsonField(parsed, "options").boolean_or("chat", true);
    thread_ = std::thread([this, model, list, checked] { run(model, list, checked); });
  }
  ~Learning() override {
    stop();
    if (thread_.joinable()) thread_.join();
  }

  // Waits for at most so many milliseconds; a JSON object of how far it is, with "done" once that
  // is all. Throws what learning threw.
  std::string wait(std::int64_t milliseconds) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(milliseconds), [&] { return is_done_; });
    if (is_done_ && failed_) std::rethrow_exception(failed_);
    Json json{{"step", progress_.step},
              {"loss", progress_.loss ? Json(*progress_.loss) : Json()},
              {"recalled", progress_.recalled},
              {"phrasings", progress_.phrasings},
              {"done", is_done_}};
    if (is_done_) {
      json["steps"] = result_.steps;
      json["slots"] = result_.slots;
      json["recalled"] = result_.recalled;
      json["phrasings"] = result_.phrasings;
      json["patch"] = result_.patch.id;
      json["rows"] = result_.patch.slots.size();
    }
    return json.dump();
  }
  void stop() {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
  }
  // Writes the patch into a file that is not there yet.
  void save(const std::string& path, const std::string& from) {
    const std::lock_guard lock(mutex_);
    if (!is_done_ || failed_) throw Error("learn: expected to have learned, got no end yet");
    Patch patch = result_.patch;
    if (!from.empty()) {
      patch.notes["from"] = from;
      patch.notes["what"] += " of " + from;
    }
    write_new_patch(path, patch);
  }

 private:
  void run(const std::string& model, const std::vector<NewFact>& facts,
           const LearnOptions& options) {
    LearnResult result;
    std::exception_ptr failed;
    try {
      const std::string folder = resolve_model_folder(model);
      Generator generator(load_model(folder), load_tokenizer(folder));
      if (generator.model()->pool().is_empty()) {
        throw Error(folder + ": expected a model with memory layers, got one without a pool");
      }
      if (is_chat_) generator.ask_by_its_template();
      result = learn(generator, facts, options,
                     read_history(generator, folder, options.rehearse, options.selection),
                     [this](const LearnProgress& now) {
                       const std::lock_guard lock(mutex_);
                       if (is_stopped_) throw Stopped();
                       progress_ = now;
                     });
    } catch (const Stopped&) {
      failed = std::make_exception_ptr(Error("learn: stopped"));
    } catch (...) {
      failed = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    result_ = std::move(result);
    failed_ = failed;
    is_done_ = true;
    changed_.notify_all();
  }

  std::mutex mutex_;  // guards what is below
  std::condition_variable changed_;
  LearnProgress progress_;
  LearnResult result_;
  std::exception_ptr failed_;
  bool is_done_ = false, is_stopped_ = false;
  bool is_chat_ = true;  // set before the thread begins
  std::thread thread_;   // last: the others are there before it begins
};

std::string explain_json(std::string model, std::string prompt, std::optional<std::string> answer,
                         std::string given) {
  const nlohmann::json parsed = io::parse_json(given, "options");
  const io::JsonField fields(parsed, "options");
  fields.expect_only({"top", "max_tokens", "prompts", "chat"});
  ExplainOptions options;
  read_count(fields, "top", options.top);
  read_count(fields, "max_tokens", options.max_tokens);
  read_texts(fields, "prompts", options.prompts);
  options.validate();
  Generator generator = Generator::load(model);
  if (fields.boolean_or("chat", true)) generator.ask_by_its_template();
  const Explanation explanation = explain(generator, prompt, answer, options);
  Json json = edit::explanation_json(explanation, prompt, {});
  json.erase("prompt");
  for (std::size_t i = 0; i < explanation.slots.size(); ++i) {
    json["slots"][i]["prompts"] = explanation.slots[i].prompts;  // their numbers, not their texts
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::tuple<std::int64_t, std::int64_t, std::int64_t> grow(std::string model, std::int64_t n_keys,
                                                          std::int64_t seed,
                                                          std::optional<std::string> out) {
  const GrownFolder grown =
      grow_folder(resolve_model_folder(model), n_keys, static_cast<std::uint64_t>(seed), out);
  return {grown.n_keys_before, grown.n_keys, grown.open_keys};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(memlayers, m) {
  m.class_<Learning>("Learning")
      .def(torch::init<const std::string&, const std::string&, const std::string&>())
      .def("wait", &Learning::wait)
      .def("stop", &Learning::stop)
      .def("save", &Learning::save);
  m.def("explain(str model, str prompt, str? answer, str options) -> str", &explain_json);
  m.def("grow(str model, int n_keys, int seed, str? out) -> (int, int, int)", &grow);
}

}  // namespace memlayers::python
