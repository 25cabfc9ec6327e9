// SPDX-License-Identifier: Apache-2.0
#include "io/mapped_read.h"

#include <ucontext.h>

#include <csetjmp>
#include <csignal>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>

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

void on_bus_error(int signal, siginfo_t* info, void* context) {
  if (target != nullptr && (info->si_code == BUS_ADRERR || info->si_code == BUS_OBJERR)) {
    missing = info->si_addr;
    // Left by a jump, the handler must leave no signal blocked: ThreadSanitizer's, which stands
    // before this one, has blocked them all.
    ::pthread_sigmask(SIG_SETMASK, &static_cast<ucontext_t*>(context)->uc_sigmask, nullptr);
    siglongjmp(*target, 1);
  }
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

}  // namespace

void run_guarded(void (*act)(const void* context) noexcept, const void* context) {
  static const bool is_installed = install();
  if (!is_installed) return act(context);  // then as if there were no guard
  sigjmp_buf here;
  sigjmp_buf* const outer = target;
  if (sigsetjmp(here, 0) == 0) {
    target = &here;
    act(context);
    target = outer;
    return;
  }
  target = outer;
  throw Error(describe(missing) + ", got an error of the disk, or a file that was cut meanwhile");
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
