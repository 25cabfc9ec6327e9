// SPDX-License-Identifier: Apache-2.0
#include "memlayers/subjects.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>

#include "io/folder.h"
#include "memlayers/error.h"

namespace memlayers {
namespace {

constexpr char kMagic[8] = {'m', 'e', 'm', 's', 'u', 'b', 'j', 1};  // the last byte: the version
constexpr std::size_t kChecksum = 8;

// Numbers of 7 bits a byte, the lowest first; all but the last byte have their highest bit set.
void put_number(std::vector<std::byte>& bytes, std::uint64_t number) {
  for (; number > 0x7f; number >>= 7) bytes.push_back(static_cast<std::byte>(number | 0x80));
  bytes.push_back(static_cast<std::byte>(number));
}

void put_hashes(std::vector<std::byte>& bytes, const std::vector<std::uint64_t>& hashes) {
  put_number(bytes, hashes.size());
  const auto raw = std::as_bytes(std::span(hashes));
  bytes.insert(bytes.end(), raw.begin(), raw.end());
}

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& what) : bytes_(bytes), what_(what) {}

  [[noreturn]] void fail(const std::string& wanted, const std::string& got) const {
    throw Error(what_ + ": expected " + wanted + ", got " + got);
  }
  std::uint64_t number() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 63; shift += 7) {
      if (at_ == bytes_.size()) fail("a whole number", "the end");
      const auto byte = static_cast<std::uint64_t>(bytes_[at_++]);
      value |= (byte & 0x7f) << shift;
      if (byte <= 0x7f) {
        if (byte == 0 && shift > 0) fail("the shortest form of a number", "a longer one");
        return value;
      }
    }
    fail("a number below 2^63", "another");
  }
  // How many follow, each of at least so many bytes.
  std::size_t count(std::size_t least_bytes) {
    const std::uint64_t count = number();
    const std::size_t left = bytes_.size() - at_;
    if (count > left / least_bytes) {
      fail("at most as many entries as fit into " + std::to_string(left) + " bytes",
           std::to_string(count));
    }
    return static_cast<std::size_t>(count);
  }
  std::vector<std::uint64_t> hashes() {
    std::vector<std::uint64_t> all(count(sizeof(std::uint64_t)));
    if (!all.empty()) {
      std::memcpy(all.data(), bytes_.data() + at_, all.size() * sizeof(std::uint64_t));
    }
    at_ += all.size() * sizeof(std::uint64_t);
    if (std::ranges::adjacent_find(all, std::greater_equal<>()) != all.end()) {
      fail("hashes that ascend", "others");
    }
    return all;
  }
  std::vector<std::int64_t> slots() {
    std::vector<std::int64_t> all(count(1));
    std::uint64_t next = 0;  // the least that may come
    for (std::int64_t& slot : all) {
      const std::uint64_t step = number();
      if (next > INT64_MAX || step > INT64_MAX - next) fail("slots below 2^63", "others");
      slot = static_cast<std::int64_t>(next + step);
      next = static_cast<std::uint64_t>(slot) + 1;
    }
    return all;
  }
  void expect_end() const {
    if (at_ != bytes_.size()) {
      fail("nothing behind the last subject", std::to_string(bytes_.size() - at_) + " bytes");
    }
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& what_;
  std::size_t at_ = 0;
};

}  // namespace

std::vector<std::byte> to_bytes(const SubjectRegistry& registry) {
  const auto magic = std::as_bytes(std::span(kMagic));
  std::vector<std::byte> bytes(magic.begin(), magic.end());
  put_hashes(bytes, registry.frame);
  put_number(bytes, registry.subjects.size());
  for (const TaughtSubject& subject : registry.subjects) {
    put_hashes(bytes, subject.grams);
    put_number(bytes, subject.slots.size());
    std::uint64_t next = 0;
    for (const std::int64_t slot : subject.slots) {
      put_number(bytes, static_cast<std::uint64_t>(slot) - next);
      next = static_cast<std::uint64_t>(slot) + 1;
    }
  }
  const std::uint64_t checksum = io::xxh3(bytes);
  const auto raw = std::as_bytes(std::span(&checksum, 1));
  bytes.insert(bytes.end(), raw.begin(), raw.end());
  return bytes;
}

SubjectRegistry subjects_of(std::span<const std::byte> bytes, const std::string& what) {
  const auto magic = std::as_bytes(std::span(kMagic));
  if (bytes.size() < magic.size() + kChecksum ||
      !std::ranges::equal(bytes.first(magic.size()), magic)) {
    throw Error(what + ": expected a registry of subjects of version 1, got something else");
  }
  std::uint64_t checksum = 0;
  const auto checked = bytes.first(bytes.size() - kChecksum);
  std::memcpy(&checksum, bytes.data() + checked.size(), sizeof(checksum));
  if (io::xxh3(checked) != checksum) {
    throw Error(what + ": expected the registry's checksum to hold, got another: it was altered");
  }
  Reader reader(checked.subspan(magic.size()), what);
  SubjectRegistry registry{.frame = reader.hashes()};
  registry.subjects.resize(reader.count(2));
  for (TaughtSubject& subject : registry.subjects) {
    subject.grams = reader.hashes();
    subject.slots = reader.slots();
  }
  reader.expect_end();
  return registry;
}

SubjectRegistry together(std::span<const SubjectRegistry> registries) {
  SubjectRegistry all;
  for (const SubjectRegistry& one : registries) {
    std::vector<std::uint64_t> frame;
    std::ranges::set_union(all.frame, one.frame, std::back_inserter(frame));
    all.frame = std::move(frame);
    all.subjects.insert(all.subjects.end(), one.subjects.begin(), one.subjects.end());
  }
  return all;
}

}  // namespace memlayers
