// SPDX-License-Identifier: Apache-2.0
#include "serve/teacher.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#include "edit/phrasings.h"
#include "edit/teach.h"
#include "io/number_text.h"
#include "serve/lesson.h"
#include "serve/low_priority.h"

namespace memlayers::serve {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kMostJobs = 64;  // that are remembered

struct Cancelled : std::exception {};

[[noreturn]] void refuse(const std::string& field, const std::string& wanted) {
  throw api::Refusal(400, "invalid_value", field + ": " + wanted, field);
}

void check_gate(const api::TeachRequest& request) {
  const bool has_facts = request.background && !Lesson::facts_of(*request.background).empty();
  if (request.least_kept && !has_facts) {
    refuse("gate.keep", "expected a background of facts of which some are to be kept, got none");
  }
  if (request.most_perplexity_ratio && !request.background) {
    refuse("gate.perplexity", "expected a background whose perplexity is measured, got none");
  }
}

// Why the patch is not applied; "" where the gate holds.
std::string objection(const api::TeachRequest& request, const api::TeachStatus& status) {
  std::string all;
  const auto object = [&](const std::string& what, double wanted, double got, const char* bound) {
    all += (all.empty() ? "" : "; ") + what + ": expected " + bound + " " +
           io::number_text(wanted) + ", got " + io::number_text(got);
  };
  if (request.least_recall && *status.recall < *request.least_recall) {
    object("recall", *request.least_recall, *status.recall, "at least");
  }
  if (request.least_kept && status.kept && *status.kept < *request.least_kept) {
    object("keep", *request.least_kept, *status.kept, "at least");
  }
  if (request.most_perplexity_ratio && *status.perplexity_ratio > *request.most_perplexity_ratio) {
    object("perplexity", *request.most_perplexity_ratio, *status.perplexity_ratio, "at most");
  }
  return all;
}

}  // namespace

Teacher::Teacher(std::string model_folder, Generator& generator, Scheduler& scheduler,
                 const EngineOptions& options, Apply apply)
    : folder_(std::move(model_folder)),
      generator_(generator),
      scheduler_(scheduler),
      options_(options.learn),
      niceness_(options.teach_niceness),
      apply_(std::move(apply)),
      thread_([this] { run(); }) {}

Teacher::~Teacher() { stop(); }

void Teacher::stop() {
  {
    const std::lock_guard lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

api::TeachStatus Teacher::add(api::TeachRequest request) {
  const auto job = std::make_shared<Job>();
  try {
    job->facts = parse_new_facts(request.facts_jsonl, "facts");
    check_gate(request);
  } catch (const api::Refusal&) {
    throw;
  } catch (const Error& error) {
    throw api::Refusal(400, "invalid_value", error.what(), "facts");
  }
  const MemoryPool pool = generator_.model()->pool();
  if (is_quantized(pool->options().row_dtype)) {
    throw api::Refusal(400, "not_trainable",
                       std::string("expected a pool whose rows can be trained, of type float32 or "
                                   "bfloat16, got ") +
                           row_type_name(pool->options().row_dtype));
  }
  if (!request.background && needs_background(generator_.model()->config(), folder_)) {
    refuse("background",
           "expected text like what the model was trained on, as its folder has no record of what "
           "that read (usage.safetensors), got none");
  }
  job->request = std::move(request);
  const std::lock_guard lock(mutex_);
  job->status.id = "teach-" + new_patch_id();
  job->status.state = "queued";
  const ModelConfig& config = generator_.model()->config();
  const bool settles = job->request.background || edit::is_scaled(config);
  const std::int64_t rounds =
      job->request.background ? 1 + edit::most_repairs(options_, config) : 1;
  job->status.steps = options_.steps + (settles ? rounds * options_.most_settling() : 0);
  jobs_.push_back(job);
  queue_.push_back(job);
  if (jobs_.size() > kMostJobs) {
    const auto over =
        std::ranges::find_if(jobs_, [](const JobPointer& each) { return each->status.is_over(); });
    if (over != jobs_.end()) jobs_.erase(over);
  }
  changed_.notify_all();
  return job->status;
}

std::vector<api::TeachStatus> Teacher::jobs() const {
  const std::lock_guard lock(mutex_);
  std::vector<api::TeachStatus> all;
  for (const JobPointer& job : jobs_) all.push_back(job->status);
  return all;
}

std::optional<api::TeachStatus> Teacher::job(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  for (const JobPointer& job : jobs_) {
    if (job->status.id == id) return job->status;
  }
  return std::nullopt;
}

bool Teacher::cancel(const std::string& id) {
  const std::lock_guard lock(mutex_);
  const auto found =
      std::ranges::find_if(jobs_, [&](const JobPointer& job) { return job->status.id == id; });
  if (found == jobs_.end() || (*found)->status.is_over()) return false;
  (*found)->is_cancelled = true;
  if (std::erase(queue_, *found) > 0) (*found)->status.state = "cancelled";
  changed_.notify_all();
  return true;
}

template <class Change>
void Teacher::change(Job& job, const Change& change) {
  const std::lock_guard lock(mutex_);
  change(job.status);
}

void Teacher::rest(Job& job) {
  constexpr std::chrono::milliseconds kMost{500};
  if (scheduler_.counters().running > 0) {
    const auto worked = std::min<Clock::duration>(kMost, Clock::now() - worked_since_);
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, worked, [&] { return is_over_ || job.is_cancelled; });
  }
  if (is_over_ || job.is_cancelled) throw Cancelled();
  worked_since_ = Clock::now();
}

void Teacher::run() {
  const LowPriority low_priority(niceness_);
  while (true) {
    JobPointer job;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return is_over_ || !queue_.empty(); });
      if (is_over_) return;
      job = queue_.front();
      queue_.pop_front();
    }
    worked_since_ = Clock::now();
    const auto end = [&](const std::string& state, const std::string& message) {
      change(*job, [&](api::TeachStatus& status) {
        status.state = state;
        status.message = message;
      });
    };
    try {
      teach(*job);
    } catch (const Cancelled&) {
      end("cancelled", "");
    } catch (const std::exception& error) {
      end("failed", std::string(error.what()).substr(0, std::string(error.what()).find('\n')));
    }
  }
}

void Teacher::teach(Job& job) {
  change(job, [](api::TeachStatus& status) { status.state = "learning"; });
  Lesson lesson(folder_, job.facts, job.request.background.value_or(""), options_,
                [&] { rest(job); });
  LearnResult result = lesson.learn([&](const LearnProgress& now) {
    change(job, [&](api::TeachStatus& status) {
      status.step = now.step;
      status.recalled = now.recalled;
      status.phrasings = now.phrasings;
    });
  });
  change(job, [&](api::TeachStatus& status) {
    status.state = "checking";
    status.recall = static_cast<double>(result.recalled) / static_cast<double>(result.phrasings);
  });
  if (result.patch.slots.empty()) {
    change(job, [](api::TeachStatus& status) {
      status.state = "rejected";
      status.message = "the model recalls all of these facts already";
    });
    return;
  }
  const auto unseen = lesson.unseen_recall(), kept = lesson.kept(),
             perplexity_ratio = lesson.perplexity_ratio();
  change(job, [&](api::TeachStatus& status) {
    status.unseen_recall = unseen;
    status.kept = kept;
    status.perplexity_ratio = perplexity_ratio;
    status.message = objection(job.request, status);
    if (!status.message.empty()) status.state = "rejected";
  });
  if (const std::string state = this->job(job.status.id)->state; state == "rejected") return;
  if (!job.request.note.empty()) result.patch.notes["note"] = job.request.note;
  result.patch.notes["from"] = "taught while serving";
  rest(job);  // the last moment to cancel
  const Committed committed = apply_(result.patch);
  change(job, [&](api::TeachStatus& status) {
    status.state = "applied";
    status.patch = result.patch.id;
    status.pool_version = committed.version;
  });
}

}  // namespace memlayers::serve
