// SPDX-License-Identifier: Apache-2.0
#include "io/mapped_read.h"

#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::io {
namespace {

// Where the thread goes on when a page is missing; null: it reads nothing that is mapped.
// "initial-exec": a handler of a signal may not be the first to touch a thread's variable, for
// which the other models may allocate.
#define MEMLAYERS_IN_HANDLER __attribute__((tls_model("initial-exec")))
thread_local sigjmp_buf* target MEMLAYERS_IN_HANDLER = nullptr;
thread_local const void* missing MEMLAYERS_IN_HANDLER = nullptr;  // the address that was read
#undef MEMLAYERS_IN_HANDLER

struct sigaction before;  // what handled SIGBUS until now

}  // namespace

// All of what a handler may read of one: no lock keeps it from being in the middle of a change.
struct WatchedBytes::Watch {
  std::atomic<bool> is_taken = false;
  std::atomic<const std::byte*> begin = nullptr, end = nullptr;
  std::atomic<const void*> missing = nullptr;  // the first address that could not be read
};

struct Watches {
  static inline std::array<WatchedBytes::Watch, 256> all;

  // Puts zeros in the place of the page, if somebody watches it.
  static bool fill(const void* address) {
    static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto* at = static_cast<const std::byte*>(address);
    for (WatchedBytes::Watch& watch : all) {
      if (std::less<>()(at, watch.begin.load()) || !std::less<>()(at, watch.end.load())) continue;
      const auto offset = reinterpret_cast<std::uintptr_t>(at) % page;
      void* const begin = const_cast<std::byte*>(at) - offset;
      if (::mmap(begin, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
          MAP_FAILED) {
        return false;
      }
      const void* none = nullptr;
      watch.missing.compare_exchange_strong(none, address);
      return true;
    }
    return false;
  }
};

namespace {

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const bool is_of_a_file = info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR;
  if (target != nullptr && is_of_a_file) {
    missing = info->si_addr;
    // Left by a jump, the handler must leave no signal blocked: ThreadSanitizer's, which stands
    // before this one, has blocked them all.
    ::pthread_sigmask(SIG_SETMASK, &static_cast<ucontext_t*>(context)->uc_sigmask, nullptr);
    siglongjmp(*target, 1);
  }
  const int error = errno;
  const bool is_filled = is_of_a_file && Watches::fill(info->si_addr);
  errno = error;
  if (is_filled) return;  // and read it again
  if ((before.sa_flags & SA_SIGINFO) != 0) return before.sa_sigaction(signal, info, context);
  if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    return before.sa_handler(signal);
  }
  ::sigaction(signal, &before, nullptr);
  ::raise(signal);
}

bool install() {
  struct sigaction action{};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, &before) == 0;
}

bool is_installed() {
  static const bool is_done = install();
  return is_done;
}

struct Names {
  struct Region {
    const std::byte* end;
    std::string path;
  };
  std::mutex mutex;
  std::map<const std::byte*, Region, std::less<>> regions;  // by their begin; guarded by mutex
};

Names& names() {
  static auto* const all = new Names;  // never destroyed: mappings may end after static objects
  return *all;
}

std::string describe(const void* address) {
  const auto* at = static_cast<const std::byte*>(address);
  Names& all = names();
  const std::lock_guard lock(all.mutex);
  const auto next = all.regions.upper_bound(at);
  if (next != all.regions.begin()) {
    const auto& [begin, region] = *std::prev(next);
    if (std::less<>()(at, region.end)) {
      return region.path + ": expected to read byte " + std::to_string(at - begin) +
             " of the mapped file";
    }
  }
  return "mapped file: expected to read a page of it";
}

[[noreturn]] void fail(const void* address) {
  throw Error(describe(address) + ", got an error of the disk, or a file that was cut meanwhile");
}

}  // namespace

void run_guarded(void (*act)(const void* context) noexcept, const void* context) {
  if (!is_installed()) return act(context);  // then as if there were no guard
  sigjmp_buf here;
  sigjmp_buf* const outer = target;
  if (sigsetjmp(here, 0) == 0) {
    target = &here;
    act(context);
    target = outer;
    return;
  }
  target = outer;
  fail(missing);
}

WatchedBytes::WatchedBytes(std::span<const std::byte> bytes) {
  if (bytes.empty() || !is_installed()) return;
  for (Watch& watch : Watches::all) {
    if (watch.is_taken.exchange(true)) continue;
    watch.missing = nullptr;
    watch.begin = bytes.data();
    watch.end = bytes.data() + bytes.size();
    watch_ = &watch;
    return;
  }
  throw Error("mapped files: expected at most " + std::to_string(Watches::all.size()) +
              " to be read at a time, got more");
}

WatchedBytes::~WatchedBytes() {
  if (watch_ == nullptr) return;
  watch_->end = watch_->begin = nullptr;
  watch_->is_taken = false;
}

WatchedBytes::WatchedBytes(WatchedBytes&& other) noexcept
    : watch_(std::exchange(other.watch_, nullptr)) {}

WatchedBytes& WatchedBytes::operator=(WatchedBytes&& other) noexcept {
  std::swap(watch_, other.watch_);
  return *this;
}

void WatchedBytes::check() const {
  if (watch_ == nullptr) return;
  if (const void* at = watch_->missing.load()) fail(at);
}

NamedBytes::NamedBytes(std::span<const std::byte> bytes, std::string path) : begin_(bytes.data()) {
  if (bytes.empty()) return;
  Names& all = names();
  const std::lock_guard lock(all.mutex);
  all.regions[begin_] = {bytes.data() + bytes.size(), std::move(path)};
}

NamedBytes::~NamedBytes() {
  Names& all = names();
  const std::lock_guard lock(all.mutex);
  all.regions.erase(begin_);
}

}  // namespace memlayers::io
