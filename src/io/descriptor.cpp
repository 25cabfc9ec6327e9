// SPDX-License-Identifier: Apache-2.0
#include "io/descriptor.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

namespace memlayers::io {

Descriptor::Descriptor(int fresh) : number_(fresh) {
  constexpr int kFirst = STDERR_FILENO + 1;
  if (fresh < 0 || fresh >= kFirst) return;
  number_ = ::fcntl(fresh, F_DUPFD_CLOEXEC, kFirst);
  const int error = errno;
  ::close(fresh);
  errno = error;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) ::close(number_);
}

Descriptor::Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

int Descriptor::release() { return std::exchange(number_, -1); }

void open_standard_streams() {
  // open() gives the lowest number that is free.
  int opened = 0;
  do opened = ::open("/dev/null", O_RDWR);
  while (opened >= 0 && opened <= STDERR_FILENO);
  if (opened >= 0) ::close(opened);
}

void outlive_file_size_limit() {
  static const bool is_done = [] {
    struct sigaction now{};
    if (::sigaction(SIGXFSZ, nullptr, &now) != 0) return false;
    if ((now.sa_flags & SA_SIGINFO) != 0 || now.sa_handler != SIG_DFL) return true;
    struct sigaction ignored{};
    ignored.sa_handler = SIG_IGN;
    return ::sigaction(SIGXFSZ, &ignored, nullptr) == 0;
  }();
  static_cast<void>(is_done);
}

}  // namespace memlayers::io
