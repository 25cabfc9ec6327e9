// SPDX-License-Identifier: Apache-2.0
// Descriptors of the system.
#pragma once

namespace memlayers::io {

// An open descriptor, closed on destruction. It is none of 0, 1 and 2: a program may have been
// started with these closed, and whatever prints would print into the file that got their number.
class Descriptor {
 public:
  // Takes what open() or the like has just returned; a negative number stays one, and errno as is.
  explicit Descriptor(int fresh);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;
  explicit operator bool() const { return number_ >= 0; }
  int number() const { return number_; }
  int release();  // the caller closes it

 private:
  int number_;
};

// Opens /dev/null as each of the descriptors 0, 1 and 2 that is closed, for the whole process: what
// other libraries open never lands there either. The first that a program of ours does.
void open_standard_streams();

// Writing beyond the size that the process may give a file is an error of that write, not the end
// of the process (SIGXFSZ), unless the program has a handler of its own.
void outlive_file_size_limit();

}  // namespace memlayers::io
