// SPDX-License-Identifier: Apache-2.0
// The processes of a run, and what each of them does (docs/parallel.md). All train the same dense
// weights, each on its rows of every batch; a memory group of them holds a pool.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "memlayers/config.h"
#include "memlayers/error.h"
#include "memlayers/parallel.h"
#include "text/dataset.h"

namespace memlayers::train {

// A mistake that all processes of the run know of, with no message between them on its way: each
// can end by itself, and the first tells the user.
class CommonError : public Error {
 public:
  using Error::Error;
};

class Processes {
 public:
  // Every process makes one. Throws CommonError where config.groups does not divide their number.
  Processes(std::shared_ptr<Communicator> world, const ParallelConfig& config);

  // This process by itself, whatever others there are.
  static Processes alone();

  int count() const { return world_->size(); }
  bool is_alone() const { return count() == 1; }
  bool is_first() const { return world_->rank() == 0; }  // it writes, and talks to the user
  Communicator& world() const { return *world_; }
  std::shared_ptr<Communicator> shared_world() const { return world_; }
  const MemoryGroup& group() const { return group_; }
  bool is_first_group() const { return world_->rank() < group_.processes->size(); }

  // This process's rows of a batch that all of them read. There may be none.
  text::Batch share_of(const text::Batch& batch) const;
  // What this process does of a step's micro-batches, one after the other, while the others do what
  // has the same number. Where the processes divide the micro-batches' number, each has whole ones:
  // the first those that come first. Otherwise it has its rows of every one.
  struct Share {
    text::Batch batch;
    bool has_targets;  // in some process
  };
  std::vector<Share> shares_of(const std::vector<text::Batch>& batches) const;
  // How many run on this process's machine.
  int on_this_host() const;
  // Whether one of them says so; all call it together.
  bool any(bool says) const;
  // Does what may fail in some of them only, and sends no messages. Where it ended with an Error in
  // one, all throw CommonError with the sentence of the first of those. All call it together.
  void together(const std::function<void()>& work) const;

 private:
  std::shared_ptr<Communicator> world_;
  MemoryGroup group_;
};

// While it lives, the others may be busy for hours: they read data, or write a checkpoint.
class LongWait {
 public:
  explicit LongWait(const Processes& processes);
  ~LongWait();
  LongWait(const LongWait&) = delete;
  LongWait& operator=(const LongWait&) = delete;

 private:
  Communicator& world_;
  Communicator::Seconds before_;
};

}  // namespace memlayers::train
