// SPDX-License-Identifier: Apache-2.0
// Jobs that teach a model facts beside its serving.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "api/engine.h"
#include "memlayers/edit.h"
#include "serve/scheduler.h"

namespace memlayers::serve {

// One job after the other, in a thread of low priority on one core, which rests as long as it has
// worked whenever somebody is answered meanwhile. A job learns on a copy of the model in memory,
// with its pool as it is then, which goes when the job is over. Functions may be called from
// several threads.
class Teacher {
 public:
  using Apply = std::function<Committed(const Patch&)>;
  // `generator`: of the model that serves. All must outlive it.
  Teacher(std::string model_folder, Generator& generator, Scheduler& scheduler,
          const EngineOptions& options, Apply apply);
  ~Teacher();
  Teacher(const Teacher&) = delete;
  Teacher& operator=(const Teacher&) = delete;

  // Throws Refusal 400 for facts that cannot be taught, and a gate that cannot be measured.
  api::TeachStatus add(api::TeachRequest request);
  std::vector<api::TeachStatus> jobs() const;  // in the order of their coming; the last 64
  std::optional<api::TeachStatus> job(const std::string& id) const;
  bool cancel(const std::string& id);  // false: it is not there, or over
  void stop();

 private:
  struct Job {
    api::TeachRequest request;
    std::vector<NewFact> facts;
    std::atomic<bool> is_cancelled = false;
    api::TeachStatus status;  // guarded by mutex_
  };
  using JobPointer = std::shared_ptr<Job>;

  void run();
  void teach(Job& job);
  void rest(Job& job);  // between steps; throws where the job is cancelled
  template <class Change>
  void change(Job& job, const Change& change);

  const std::string folder_;
  Generator& generator_;
  Scheduler& scheduler_;
  const LearnOptions options_;
  const int niceness_;
  Apply apply_;
  std::chrono::steady_clock::time_point worked_since_ = {};
  mutable std::mutex mutex_;  // guards what is below
  std::condition_variable changed_;
  std::vector<JobPointer> jobs_;
  std::deque<JobPointer> queue_;
  std::atomic<bool> is_over_ = false;
  std::thread thread_;  // the last
};

}  // namespace memlayers::serve
