// SPDX-License-Identifier: Apache-2.0
// Reading mapped files when the disk fails: a page that it does not give, or that was cut off the
// file, raises SIGBUS, which ends the process unless it is met here.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>

namespace memlayers::io {

// act(context), for read_mapped().
void run_guarded(void (*act)(const void* context) noexcept, const void* context);

// f(), which reads mapped files. Where a page of one cannot be had, f is left right there and Error
// is thrown, which names file and offset. So f is a leaf: nothing that it calls owns, locks,
// allocates or throws anything, and what it writes is of no use after an Error. Takes some 10 ns:
// called for a range, not for a row. Puts a handler of SIGBUS over the one it finds, which goes on
// getting all that is not raised in such an f.
template <class F>
void read_mapped(const F& f) {
  run_guarded([](const void* context) noexcept { (*static_cast<const F*>(context))(); }, &f);
}

// Copies bytes of a mapped file.
inline void copy_mapped(void* to, std::span<const std::byte> from) {
  if (from.empty()) return;
  read_mapped([=] { std::memcpy(to, from.data(), from.size()); });
}

// While it lives, any thread may read these bytes of a mapped file in whatever function: a page
// that cannot be had reads as zeros, and check() tells. What was made of the bytes is of use only
// if check() did not throw behind it.
class WatchedBytes {
 public:
  explicit WatchedBytes(std::span<const std::byte> bytes);
  ~WatchedBytes();
  WatchedBytes(WatchedBytes&& other) noexcept;
  WatchedBytes& operator=(WatchedBytes&& other) noexcept;
  void check() const;  // throws Error, as read_mapped()

 private:
  struct Watch;
  friend struct Watches;
  Watch* watch_ = nullptr;
};

// f(), which may do what it likes with these bytes; Error, whatever f threw, where some of them
// could not be had. For bytes that only f reads.
template <class F>
void read_watched(std::span<const std::byte> bytes, const F& f) {
  const WatchedBytes watched(bytes);
  try {
    f();
  } catch (...) {
    watched.check();  // what f met may have been the zeros
    throw;
  }
  watched.check();
}

// While it lives, errors of read_mapped() name `path` for these bytes.
class NamedBytes {
 public:
  NamedBytes(std::span<const std::byte> bytes, std::string path);
  ~NamedBytes();
  NamedBytes(const NamedBytes&) = delete;
  NamedBytes& operator=(const NamedBytes&) = delete;

 private:
  const std::byte* begin_;
};

}  // namespace memlayers::io
