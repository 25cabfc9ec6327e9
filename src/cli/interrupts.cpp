// SPDX-License-Identifier: Apache-2.0
#include "cli/interrupts.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <utility>

#include "io/lines.h"
#include "memlayers/error.h"

namespace memlayers::cli {
namespace {

std::atomic<bool> is_requested = false;
std::atomic<int> event = -1;
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

extern "C" void note_interrupt(int /*signal*/) {
  if (is_requested.exchange(true)) ::_exit(kInterrupted);
  const int before = errno;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event, &one, sizeof one);
  errno = before;
}

}  // namespace

Interrupts::Interrupts() : descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (descriptor_ < 0) throw Error(std::string("eventfd: ") + std::strerror(errno));
  event = descriptor_;
  is_requested = false;
  struct sigaction action = {};
  action.sa_handler = note_interrupt;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
}

Interrupts::~Interrupts() {
  // Whoever presses it again while the program leaves gets the same exit code, only sooner.
  if (!is_requested) std::signal(SIGINT, SIG_DFL);
  event = -1;
  ::close(descriptor_);
}

bool Interrupts::requested() const { return is_requested; }

void Interrupts::forget() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t read = ::read(descriptor_, &count, sizeof count);
  is_requested = false;
}

std::optional<std::string> LineInput::next() {
  std::size_t end = std::string::npos;
  while ((end = pending_.find('\n')) == std::string::npos && read_more()) {
  }
  if (interrupts_.requested() || (end == std::string::npos && pending_.empty())) return {};
  const std::string line = pending_.substr(0, end);
  pending_.erase(0, end == std::string::npos ? end : end + 1);
  return std::string(io::plain_line(line, std::exchange(is_first_, false)));
}

bool LineInput::read_more() {
  std::array<pollfd, 2> wait{{{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
                              {.fd = interrupts_.descriptor(), .events = POLLIN, .revents = 0}}};
  while (!has_ended_) {
    if (::poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) {
      throw Error(std::string("standard input: cannot read: ") + std::strerror(errno));
    }
    if (interrupts_.requested()) return false;
    if (wait[0].revents == 0) continue;
    std::array<char, 4096> part;
    const ssize_t n = ::read(STDIN_FILENO, part.data(), part.size());
    if (n > 0) {
      pending_.append(part.data(), static_cast<std::size_t>(n));
      return true;
    }
    if (n == 0) has_ended_ = true;
    if (n < 0 && errno != EINTR && errno != EAGAIN) {
      throw Error(std::string("standard input: cannot read: ") + std::strerror(errno));
    }
  }
  return false;
}

}  // namespace memlayers::cli
