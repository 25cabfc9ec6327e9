// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>

#include "dist/collectives.h"
#include "dist/launcher.h"
#include "dist/mpi_world.h"

namespace memlayers {
namespace {

// A run without a launcher: one process, which has nobody to talk to.
class Alone final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  const std::string& host(int) const override { return host_; }
  std::unique_ptr<Transfer> send(int to, int, std::span<const std::byte>,
                                 std::shared_ptr<const void>) override {
    return nobody(to);
  }
  std::unique_ptr<Transfer> receive(int from, int, std::span<std::byte>,
                                    std::shared_ptr<const void>) override {
    return nobody(from);
  }
  std::unique_ptr<Transfer> receive(int from, int) override { return nobody(from); }
  std::shared_ptr<Communicator> part(std::span<const int>) override {
    return std::make_shared<Alone>();
  }
  void set_step(std::int64_t) override {}
  void set_deadline(Seconds deadline) override { deadline_ = deadline; }
  Seconds deadline() const override { return deadline_; }

 private:
  static std::unique_ptr<Transfer> nobody(int rank) {
    throw Error("message: expected another process of this run, got rank " + std::to_string(rank) +
                " in a run of one process");
  }
  std::string host_ = "localhost";
  Seconds deadline_{25};
};

std::mutex world_mutex;
std::shared_ptr<Communicator> the_world;  // guarded by world_mutex

}  // namespace

// What the launchers of Open MPI, of PMIx and of MPICH tell the processes that they start.
bool is_launched() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

int dist::launched_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    if (const char* text = std::getenv(name))
      return static_cast<int>(std::strtol(text, nullptr, 10));
  }
  return 0;
}

bool dist::world_has_started() {
  const std::lock_guard lock(world_mutex);
  return the_world != nullptr;
}

void wait_all(Transfers& transfers) {
  for (const auto& transfer : transfers) transfer->wait();
  transfers.clear();
}

std::shared_ptr<Communicator> dist::alone() { return std::make_shared<Alone>(); }

std::shared_ptr<Communicator> world() {
  const std::lock_guard lock(world_mutex);
  if (the_world == nullptr) {
    if (is_launched()) {
      the_world = dist::start_mpi();
    } else {
      the_world = dist::alone();
    }
  }
  return the_world;
}

void leave_world() {
  const std::lock_guard lock(world_mutex);
  if (the_world == nullptr || the_world->size() == 1) {
    dist::end_mpi();
    return;
  }
  dist::barrier(*the_world);  // ends with an error, not never, where a process is lost
  dist::end_mpi();
}

void abort_world(int code) { dist::abort_mpi(code); }

}  // namespace memlayers
