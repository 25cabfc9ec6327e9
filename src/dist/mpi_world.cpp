// SPDX-License-Identifier: Apache-2.0
// Messages over MPI. Every call of MPI is a short one that never waits, under one lock: so any
// thread may talk (autograd chooses in which one backward runs), and MPI is asked for no more than
// MPI_THREAD_SERIALIZED, which all its transports give without locks of their own in each message.
// What waits is wait(), a loop around done(), which sees the deadline.
#include "dist/mpi_world.h"

#include <mpi.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <deque>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace memlayers::dist {
namespace {

using Clock = std::chrono::steady_clock;

// 23 bits are what every transport of Open MPI has for a tag. A part that is made after kParts
// others has the tags of one that is long gone, or speaks to others.
constexpr int kTagsAPart = 1 << 15, kParts = 254;
constexpr int kNoticeTag = (kParts + 1) * kTagsAPart;  // beyond those of all parts
constexpr int kFarewellTag = kNoticeTag + 1;           // of who ends the run and has said why
// A call that tests a message takes less where there is nothing to move, and a copy takes longer.
constexpr std::chrono::microseconds kMovesNothing{2};
// How long those that miss a process ask around for who else is there.
constexpr std::chrono::seconds kAskAround{2};

void check(int result, const char* what) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(result, text, &length);
  throw Error(std::string(what) + ": " + text);
}

int count_of(std::size_t bytes, const char* what) {
  if (bytes > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw Error(std::string(what) + ": expected a message below 2 GiB, got " +
                std::to_string(bytes) + " bytes: fewer tokens in a batch make smaller ones");
  }
  return static_cast<int>(bytes);
}

// What all communicators of the process share.
struct Mpi {
  std::mutex mutex;  // held in every call of MPI
  int rank = 0, size = 1;
  std::vector<std::string> hosts;
  std::vector<pid_t> neighbours;  // by rank: 0 where this process could not tell that it has ended
  double spin_s = 0.01;           // how long a wait keeps its core busy
  std::atomic<std::int64_t> step{0};
  std::atomic<double> deadline_s{25};
  std::atomic<int> parts{0};
  std::atomic<std::int64_t> bytes_sent{0}, exchange_ns{0}, waited_ns{0};

  std::string name(int world_rank) const {
    return "rank " + std::to_string(world_rank) + " on " +
           hosts[static_cast<std::size_t>(world_rank)];
  }
  bool someone_asks();
  void check_neighbours();
  void tell_all(int tag, int number);
  [[noreturn]] void give_up(int waited_for, double seconds);
};

// Whether another process misses one and asks around: then this one, that waits too, answers.
bool Mpi::someone_asks() {
  const std::lock_guard lock(mutex);
  int is_there = 0;
  check(MPI_Iprobe(MPI_ANY_SOURCE, kNoticeTag, MPI_COMM_WORLD, &is_there, MPI_STATUS_IGNORE),
        "MPI_Iprobe");
  return is_there != 0;
}

// A process of this machine that has ended while others wait did not end as it should: MPI lets
// none of them go before all have come to the end.
void Mpi::check_neighbours() {
  std::optional<int> lost, first;  // ranks
  for (int other = 0; other < size; ++other) {
    const pid_t process = neighbours[static_cast<std::size_t>(other)];
    if (process == 0) continue;
    const bool has_ended = kill(process, 0) != 0 && errno == ESRCH;
    std::optional<int>& place = has_ended ? lost : first;
    if (!place) place = other;
  }
  if (!lost) return;
  int has_said_why = 0;
  {
    const std::lock_guard lock(mutex);
    check(MPI_Iprobe(*lost, kFarewellTag, MPI_COMM_WORLD, &has_said_why, MPI_STATUS_IGNORE),
          "MPI_Iprobe");
  }
  throw PeerLost(name(*lost) + ": died in step " + std::to_string(step.load()),
                 has_said_why == 0 && first == rank);
}

// A number to all others, which may never take it.
void Mpi::tell_all(int tag, int number) {
  const std::lock_guard lock(mutex);
  static std::deque<int> notices;  // a message is read until it is taken, which may be never
  const int* notice = &notices.emplace_back(number);
  for (int to = 0; to < size; ++to) {
    if (to == rank) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(notice, 1, MPI_INT, to, tag, MPI_COMM_WORLD, &request), "MPI_Isend");
    // NOLINTNEXTLINE(clang-analyzer-optin.mpi.MPI-Checker): nobody may wait for who is lost
    check(MPI_Request_free(&request), "MPI_Request_free");
  }
}

// Those that wait tell each other so; who says nothing is lost. The lowest of the others tells the
// user.
void Mpi::give_up(int waited_for, double seconds) {
  std::vector<int> waits(static_cast<std::size_t>(size), -1);  // for whom
  waits[static_cast<std::size_t>(rank)] = waited_for;
  tell_all(kNoticeTag, waited_for);
  const auto end = Clock::now() + kAskAround;
  while (Clock::now() < end && std::ranges::count(waits, -1) > 0) {
    {
      const std::lock_guard lock(mutex);
      int is_there = 0;
      MPI_Status status;
      check(MPI_Iprobe(MPI_ANY_SOURCE, kNoticeTag, MPI_COMM_WORLD, &is_there, &status),
            "MPI_Iprobe");
      if (is_there != 0) {
        int for_whom = 0;
        check(MPI_Recv(&for_whom, 1, MPI_INT, status.MPI_SOURCE, kNoticeTag, MPI_COMM_WORLD,
                       MPI_STATUS_IGNORE),
              "MPI_Recv");
        waits[static_cast<std::size_t>(status.MPI_SOURCE)] = for_whom;
        continue;
      }
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  std::string lost;
  bool is_first = true;
  for (int other = 0; other < size; ++other) {
    if (waits[static_cast<std::size_t>(other)] == -1) {
      lost += (lost.empty() ? "" : ", ") + name(other);
    } else if (other < rank) {
      is_first = false;
    }
  }
  const std::string when = " in step " + std::to_string(step.load());
  const std::string how_long = " within " + std::to_string(std::lround(seconds)) + " s";
  if (lost.empty()) {
    throw PeerLost(name(rank) + ": got nothing from " + name(waited_for) + how_long + when +
                       ", which waits itself: the processes do not do the same",
                   is_first);
  }
  throw PeerLost(lost + ": did not answer" + how_long + when + ": died, hangs or was busy longer",
                 is_first);
}

Mpi* mpi = nullptr;  // from start_mpi() to end_mpi()

class MpiTransfer final : public Transfer {
 public:
  MpiTransfer(Mpi& shared, int peer) : mpi_(shared), peer_(peer) {}
  ~MpiTransfer() override {
    if (is_done_ || request_ == MPI_REQUEST_NULL) return;
    // MPI may still read or write the bytes: after an error, when the process is about to end.
    static_cast<void>(new (std::nothrow) std::shared_ptr<const void>(std::move(owner_)));
    static_cast<void>(new (std::nothrow) Message(std::move(message_)));
  }
  MpiTransfer(const MpiTransfer&) = delete;
  MpiTransfer& operator=(const MpiTransfer&) = delete;

  void start_send(int tag, std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
    owner_ = std::move(owner);
    mpi_.bytes_sent += static_cast<std::int64_t>(bytes.size());
    const std::lock_guard lock(mpi_.mutex);
    const Moving moving(*this);
    check(MPI_Isend(bytes.data(), count_of(bytes.size(), "send"), MPI_BYTE, peer_, tag,
                    MPI_COMM_WORLD, &request_),
          "MPI_Isend");
  }
  void start_receive(int tag, std::span<std::byte> out, std::shared_ptr<const void> owner) {
    owner_ = std::move(owner);
    expected_ = count_of(out.size(), "receive");
    const std::lock_guard lock(mpi_.mutex);
    check(MPI_Irecv(out.data(), *expected_, MPI_BYTE, peer_, tag, MPI_COMM_WORLD, &request_),
          "MPI_Irecv");
  }
  void start_receive(int tag) { probed_tag_ = tag; }

  bool done() override {
    if (is_done_) return true;
    const std::lock_guard lock(mpi_.mutex);
    const Moving moving(*this);
    if (probed_tag_ && !match(*probed_tag_)) return false;
    int is_done = 0;
    MPI_Status status;
    check(MPI_Test(&request_, &is_done, &status), "MPI_Test");
    if (is_done == 0) return false;
    is_done_ = true;
    owner_.reset();
    if (expected_) check_size(status, *expected_);
    return true;
  }

  void wait() override {
    if (done()) return;
    const auto begin = Clock::now();
    const std::int64_t moved_before = moved_ns_;
    auto ask = begin + std::chrono::milliseconds(100);
    for (std::int64_t tries = 0; !done(); ++tries) {
      const auto now = Clock::now();
      const double seconds = std::chrono::duration<double>(now - begin).count();
      if (now >= ask) {
        ask = now + std::chrono::milliseconds(100);
        mpi_.check_neighbours();
        if (mpi_.someone_asks()) mpi_.give_up(peer_, seconds);
      }
      if (seconds > mpi_.deadline_s) mpi_.give_up(peer_, seconds);
      // Others may need this core: their answer is what is waited for.
      if (seconds < mpi_.spin_s) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    }
    const std::chrono::nanoseconds all = Clock::now() - begin;
    mpi_.waited_ns += std::max<std::int64_t>(0, all.count() - (moved_ns_ - moved_before));
  }

  Message take() override { return std::move(message_); }

 private:
  // Counts the time of a call that moves bytes.
  class Moving {
   public:
    explicit Moving(MpiTransfer& transfer) : transfer_(transfer), begin_(Clock::now()) {}
    ~Moving() {
      const std::chrono::nanoseconds time = Clock::now() - begin_;
      if (!transfer_.is_done_ && time < kMovesNothing) return;
      transfer_.moved_ns_ += time.count();
      transfer_.mpi_.exchange_ns += time.count();
    }
    Moving(const Moving&) = delete;
    Moving& operator=(const Moving&) = delete;

   private:
    MpiTransfer& transfer_;
    Clock::time_point begin_;
  };
  // Whether the message has come, so that its size is known; then starts to receive it.
  bool match(int tag) {
    int is_there = 0;
    MPI_Message found = MPI_MESSAGE_NULL;
    MPI_Status status;
    check(MPI_Improbe(peer_, tag, MPI_COMM_WORLD, &is_there, &found, &status), "MPI_Improbe");
    if (is_there == 0) return false;
    int count = 0;
    check(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count");
    const auto size = static_cast<std::size_t>(count);
    message_ = {std::make_shared_for_overwrite<std::byte[]>(size), size};
    check(MPI_Imrecv(message_.data.get(), count, MPI_BYTE, &found, &request_), "MPI_Imrecv");
    probed_tag_.reset();
    return true;
  }
  void check_size(const MPI_Status& status, int expected) const {
    int count = 0;
    check(MPI_Get_count(&status, MPI_BYTE, &count), "MPI_Get_count");
    if (count != expected) {
      throw Error("message from " + mpi_.name(peer_) + ": expected " + std::to_string(expected) +
                  " bytes, got " + std::to_string(count));
    }
  }

  Mpi& mpi_;
  int peer_;  // in the world
  MPI_Request request_ = MPI_REQUEST_NULL;
  std::optional<int> probed_tag_, expected_;
  std::shared_ptr<const void> owner_;
  Message message_;
  bool is_done_ = false;
  std::int64_t moved_ns_ = 0;
};

// Some of the world's processes. Messages of two communicators do not mix: each has tags of its
// own.
class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(Mpi& shared, std::vector<int> members, int number)
      : mpi_(shared), members_(std::move(members)), first_tag_(number * kTagsAPart) {
    const auto own = std::ranges::find(members_, mpi_.rank);
    if (own == members_.end()) {
      throw Error("communicator: expected rank " + std::to_string(mpi_.rank) +
                  " among its members");
    }
    rank_ = static_cast<int>(own - members_.begin());
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }
  const std::string& host(int rank) const override {
    return mpi_.hosts[static_cast<std::size_t>(world_rank(rank))];
  }
  std::unique_ptr<Transfer> send(int to, int tag, std::span<const std::byte> bytes,
                                 std::shared_ptr<const void> owner) override {
    auto transfer = std::make_unique<MpiTransfer>(mpi_, world_rank(to));
    transfer->start_send(first_tag_ + tag, bytes, std::move(owner));
    return transfer;
  }
  std::unique_ptr<Transfer> receive(int from, int tag, std::span<std::byte> out,
                                    std::shared_ptr<const void> owner) override {
    auto transfer = std::make_unique<MpiTransfer>(mpi_, world_rank(from));
    transfer->start_receive(first_tag_ + tag, out, std::move(owner));
    return transfer;
  }
  std::unique_ptr<Transfer> receive(int from, int tag) override {
    auto transfer = std::make_unique<MpiTransfer>(mpi_, world_rank(from));
    transfer->start_receive(first_tag_ + tag);
    return transfer;
  }
  std::shared_ptr<Communicator> part(std::span<const int> members) override {
    std::vector<int> world_members;
    for (const int member : members) world_members.push_back(world_rank(member));
    return std::make_shared<MpiCommunicator>(mpi_, std::move(world_members),
                                             1 + mpi_.parts++ % kParts);
  }
  Traffic traffic() const override {
    return {.bytes_sent = mpi_.bytes_sent,
            .exchange_s = 1e-9 * static_cast<double>(mpi_.exchange_ns),
            .waited_s = 1e-9 * static_cast<double>(mpi_.waited_ns)};
  }
  void set_step(std::int64_t step) override { mpi_.step = step; }
  void set_deadline(Seconds deadline) override { mpi_.deadline_s = deadline.count(); }
  Seconds deadline() const override { return Seconds(mpi_.deadline_s.load()); }

 private:
  int world_rank(int rank) const { return members_[static_cast<std::size_t>(rank)]; }
  Mpi& mpi_;
  std::vector<int> members_;  // ranks in the world
  int first_tag_, rank_ = 0;
};

// Those whose end this process can see: on the same machine, and in the same space of process
// numbers, which two containers do not share.
std::vector<pid_t> find_neighbours(const Mpi& shared) {
  using Place = std::array<std::int64_t, 3>;  // process, space of process numbers
  struct stat space = {};
  if (stat("/proc/self/ns/pid", &space) != 0) space.st_ino = 0;
  const Place own{getpid(), static_cast<std::int64_t>(space.st_dev),
                  static_cast<std::int64_t>(space.st_ino)};
  std::vector<Place> all(static_cast<std::size_t>(shared.size));
  check(MPI_Allgather(own.data(), 3, MPI_INT64_T, all.data(), 3, MPI_INT64_T, MPI_COMM_WORLD),
        "MPI_Allgather");
  std::vector<pid_t> found;
  const std::string& host = shared.hosts[static_cast<std::size_t>(shared.rank)];
  for (std::size_t other = 0; other < all.size(); ++other) {
    const bool is_here = space.st_ino != 0 && shared.hosts[other] == host &&
                         all[other][1] == own[1] && all[other][2] == own[2];
    found.push_back(is_here ? static_cast<pid_t>(all[other][0]) : 0);
  }
  return found;
}

}  // namespace

std::shared_ptr<Communicator> start_mpi() {
  int thread_level = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &thread_level), "MPI_Init_thread");
  check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  if (thread_level < MPI_THREAD_SERIALIZED) {
    throw Error("MPI: expected thread level MPI_THREAD_SERIALIZED, got " +
                std::to_string(thread_level));
  }
  auto* const started = new Mpi;  // lives as long as the process: so may transfers
  check(MPI_Comm_rank(MPI_COMM_WORLD, &started->rank), "MPI_Comm_rank");
  check(MPI_Comm_size(MPI_COMM_WORLD, &started->size), "MPI_Comm_size");
  char own_host[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  check(MPI_Get_processor_name(own_host, &length), "MPI_Get_processor_name");
  std::vector<char> hosts(static_cast<std::size_t>(started->size) * MPI_MAX_PROCESSOR_NAME);
  check(MPI_Allgather(own_host, MPI_MAX_PROCESSOR_NAME, MPI_CHAR, hosts.data(),
                      MPI_MAX_PROCESSOR_NAME, MPI_CHAR, MPI_COMM_WORLD),
        "MPI_Allgather");
  std::vector<int> all;
  for (int rank = 0; rank < started->size; ++rank) {
    started->hosts.emplace_back(hosts.data() +
                                static_cast<std::size_t>(rank) * MPI_MAX_PROCESSOR_NAME);
    all.push_back(rank);
  }
  started->neighbours = find_neighbours(*started);
  const auto here =
      std::ranges::count(started->hosts, started->hosts[static_cast<std::size_t>(started->rank)]);
  if (here > static_cast<std::ptrdiff_t>(std::thread::hardware_concurrency())) {
    started->spin_s = 20e-6;  // whoever is waited for needs the core
  }
  mpi = started;
  return std::make_shared<MpiCommunicator>(*started, std::move(all), 0);
}

void end_mpi() {
  if (mpi == nullptr) return;
  const std::lock_guard lock(mpi->mutex);
  int has_ended = 0;
  check(MPI_Finalized(&has_ended), "MPI_Finalized");
  if (has_ended == 0) check(MPI_Finalize(), "MPI_Finalize");
}

void abort_mpi(int code) {
  int has_ended = 0;
  if (mpi == nullptr || MPI_Finalized(&has_ended) != MPI_SUCCESS || has_ended != 0) return;
  try {
    mpi->tell_all(kFarewellTag, code);
  } catch (const Error&) {  // then the others say that this one died, which is true
  }
  MPI_Abort(MPI_COMM_WORLD, code);
}

}  // namespace memlayers::dist
