// SPDX-License-Identifier: Apache-2.0
#include "io/streams.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>
#include <vector>

#include "io/posix_file.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

// `got`: "" where nobody knows how many there would be.
void check_size(const std::string& path, std::uint64_t bytes, std::uint64_t most,
                const std::string& got) {
  if (bytes <= most) return;
  throw Error(path + ": expected at most " + std::to_string(most) + " bytes of text, got " +
              (got.empty() ? "more" : got));
}

std::string read_to_end(int number, const std::string& path, std::uint64_t most) {
  // A descriptor of our own: the caller's may be closed meanwhile by who owns it.
  const Descriptor stream(::fcntl(number, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  if (!stream) fail(path, "cannot read");
  std::string text;
  std::vector<char> buffer(1 << 16);
  while (true) {
    const ssize_t n = ::read(stream.number(), buffer.data(), buffer.size());
    if (n == 0) return text;
    if (n > 0) {
      text.append(buffer.data(), static_cast<std::size_t>(n));
      check_size(path, text.size(), most, "");
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      std::array<pollfd, 1> wait{{{.fd = stream.number(), .events = POLLIN, .revents = 0}}};
      ::poll(wait.data(), wait.size(), -1);
    } else if (errno != EINTR) {
      fail(path, "cannot read");
    }
  }
}

}  // namespace

std::optional<int> stream_of(const std::string& path) {
  if (path == "-" || path == "/dev/stdin") return STDIN_FILENO;
  for (const std::string& folder : {std::string("/dev/fd/"), std::string("/proc/self/fd/"),
                                    "/proc/" + std::to_string(::getpid()) + "/fd/"}) {
    if (!path.starts_with(folder)) continue;
    int number = 0;
    const char* end = path.data() + path.size();
    const auto [rest, error] = std::from_chars(path.data() + folder.size(), end, number);
    if (error == std::errc() && rest == end && number >= 0) return number;
  }
  return std::nullopt;
}

std::string read_stream_or_file(FileSystem& fs, const std::string& path, std::uint64_t most) {
  if (const auto stream = stream_of(path)) {
    return read_to_end(*stream, path == "-" ? "standard input" : path, most);
  }
  const auto file = fs.open(path, OpenMode::kRead);
  check_size(path, file->size(), most, std::to_string(file->size()));
  std::string text(file->size(), '\0');
  file->pread(std::as_writable_bytes(std::span(text)), 0);
  return text;
}

}  // namespace memlayers::io
