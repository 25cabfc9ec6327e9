// SPDX-License-Identifier: Apache-2.0
// One pool over many processes: how processes talk, and who holds what. docs/parallel.md has the
// whole story. Does not know torch.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memlayers/error.h"

namespace memlayers {

// Bytes that were received, aligned for any number.
struct Message {
  std::shared_ptr<std::byte[]> data;
  std::size_t size = 0;
  std::span<std::byte> bytes() const { return {data.get(), size}; }
};

// A message on its way. Ends with done() or wait(); may be waited for in any thread.
class Transfer {
 public:
  virtual ~Transfer() = default;
  virtual bool done() = 0;  // never waits, but moves all messages on
  // Throws PeerLost where the other side has not done its part before the deadline.
  virtual void wait() = 0;
  virtual Message take() = 0;  // of receive() without a place, once done
};
using Transfers = std::vector<std::unique_ptr<Transfer>>;

// Throws what Transfer::wait() throws.
void wait_all(Transfers& transfers);

// What a process has sent, and the time that went by in doing so, since it started.
struct Traffic {
  std::int64_t bytes_sent = 0;
  double exchange_s = 0;  // in calls that move messages
  double waited_s = 0;    // for other processes, who had nothing to say yet
};

// The processes of a run, or some of them, numbered from 0. Messages between two of them with the
// same tag arrive in the order in which they were sent.
//
// Any thread may call, several at once. A run without a launcher is one process, and nothing here
// then waits or fails.
class Communicator {
 public:
  using Seconds = std::chrono::duration<double>;

  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual const std::string& host(int rank) const = 0;

  // Starts sending; `bytes` stay as they are, and `owner` alive, until the transfer is done. tag in
  // [0, 2^15).
  virtual std::unique_ptr<Transfer> send(int to, int tag, std::span<const std::byte> bytes,
                                         std::shared_ptr<const void> owner) = 0;
  // Starts receiving a message of exactly out.size() bytes into `out`, which `owner` keeps alive.
  virtual std::unique_ptr<Transfer> receive(int from, int tag, std::span<std::byte> out,
                                            std::shared_ptr<const void> owner) = 0;
  // Starts receiving a message of any size: Transfer::take().
  virtual std::unique_ptr<Transfer> receive(int from, int tag) = 0;

  // The ranks `members`, ascending and this one among them, as a communicator of their own. Every
  // process calls it the same number of times in the same order, each with a group of its own.
  virtual std::shared_ptr<Communicator> part(std::span<const int> members) = 0;

  // Of this process, all its communicators together.
  virtual Traffic traffic() const { return {}; }

  // What PeerLost names: set by whoever counts steps.
  virtual void set_step(std::int64_t step) = 0;
  // How long a wait may take before the other side counts as lost: 25 s where nothing is set. A
  // process that is busy for longer says so by setting more on all.
  virtual void set_deadline(Seconds deadline) = 0;
  virtual Seconds deadline() const = 0;
};

// A process died, hangs or was too slow. The sentence names rank, host and step. Every process that
// waited throws one; `is_first` is true in one of them, which should tell the user.
class PeerLost : public Error {
 public:
  PeerLost(const std::string& sentence, bool is_first) : Error(sentence), is_first_(is_first) {}
  bool is_first() const { return is_first_; }

 private:
  bool is_first_;
};

// All processes of this run: those that mpirun (or another launcher of MPI) started with this one,
// or this one alone. Starts MPI when it is called first, and only under a launcher. Throws Error
// where MPI does not start.
std::shared_ptr<Communicator> world();
// Whether a launcher started this process; then it may be one of several.
bool is_launched();
// Waits for all processes and ends MPI, once, before main() returns: no message after it.
void leave_world();
// Ends all processes of the run with exit code `code`, this one too; returns only where there is no
// other.
void abort_world(int code);

// How a memory group of column_parts * row_parts processes divides the table of a pool: process
// `row_part * column_parts + column_part` holds columns of one part of every row of the other.
struct PoolSplit {
  int column_parts = 1, row_parts = 1;
};

// The processes that hold a pool together. Absent or one process: that one holds all of it.
struct MemoryGroup {
  std::shared_ptr<Communicator> processes = {};
  std::optional<PoolSplit> split = {};  // absent: choose_split()
  // Those that hold the same part in the other memory groups of the run, and this process: their
  // optimizers take the gradients of all. Absent: there is no other group.
  std::shared_ptr<Communicator> replicas = {};
};

// Columns as far as a slice keeps a cache line pair (32 columns of float32, 64 of bfloat16) and the
// number of processes divides evenly, rows for the rest.
PoolSplit choose_split(std::int64_t width, std::int64_t element_bytes, int processes);

// The part of a pool's table that a process holds: row i of it is slot first_slot + i * slot_step,
// of which it has `columns`, side by side. That of a process that holds all of a pool has all of
// its columns in one range.
struct PoolPart {
  struct Columns {
    std::int64_t first, width;
  };
  std::int64_t first_slot = 0, slot_step = 1, rows = 0;
  std::vector<Columns> columns = {};
  std::int64_t row_width = 0;  // of the whole rows

  std::int64_t slot(std::int64_t row) const { return first_slot + row * slot_step; }
  std::int64_t width() const {
    std::int64_t sum = 0;
    for (const Columns& range : columns) sum += range.width;
    return sum;
  }
};

}  // namespace memlayers
