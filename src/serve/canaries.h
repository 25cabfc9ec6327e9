// SPDX-License-Identifier: Apache-2.0
// Questions that are asked again after each edit.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "api/engine.h"
#include "memlayers/generator.h"
#include "serve/canary_file.h"
#include "serve/scheduler.h"

namespace memlayers::serve {

// A canary is well where a greedy answer to its prompt is the answer that it names, or begins with
// it and goes on behind a word's end. One that was well, and is not any more after a patch was
// applied, takes the patch back where it says so. They lie in a file, and are all asked when the
// object is made. Functions may be called from several threads.
class Canaries {
 public:
  using Rollback = std::function<void(const std::string& patch)>;
  // Of the file at `path`, if there is one. `rollback` is called in a thread of its own. All must
  // outlive it. Throws Error as read_canaries().
  Canaries(const Generator& generator, Scheduler& scheduler, io::FileSystem& files,
           std::string path, Rollback rollback);
  ~Canaries();
  Canaries(const Canaries&) = delete;
  Canaries& operator=(const Canaries&) = delete;

  std::vector<api::Canary> all() const;  // by id
  // What these change is on the disk when they return, or they throw Refusal 503 and it is as it
  // was.
  void set(api::Canary canary);  // and asks it
  bool remove(const std::string& id);
  // After an edit, which made this version: asks all. `patch`: what was applied.
  void ask(const std::optional<std::string>& patch, std::uint64_t version);
  void stop();

 private:
  struct Round {
    std::optional<std::string> canary, patch;  // canary: it alone
    std::optional<std::uint64_t> version;
  };
  CanariesById by_id() const;
  void store(const CanariesById& canaries);  // requires storing_
  void run();
  void ask_one(const api::Canary& canary, const Round& round, bool& takes_back);

  const Generator& generator_;  // how questions are put
  Scheduler& scheduler_;
  io::FileSystem& files_;
  const std::string path_;
  Rollback rollback_;
  std::mutex storing_;        // held while the file is written, which nobody else waits for
  mutable std::mutex mutex_;  // guards what is below
  std::condition_variable changed_;
  CanariesById canaries_;
  std::deque<Round> rounds_;
  std::atomic<bool> is_over_ = false;
  std::thread thread_;  // the last
};

}  // namespace memlayers::serve
