// SPDX-License-Identifier: Apache-2.0
#include "train/event_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "support/temp_dir.h"

namespace memlayers::train {
namespace {

// CRC32C bit by bit, as RFC 3720 defines it; independent of the table under test.
std::uint32_t plain_crc(const std::string& data) {
  std::uint32_t crc = 0xffffffffU;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82f63b78U : crc >> 1;
  }
  return crc ^ 0xffffffffU;
}

template <class T>
T read(const std::string& data, std::size_t at) {
  T value;
  std::memcpy(&value, data.data() + at, sizeof(T));
  return value;
}

std::vector<std::string> records(const std::string& file) {
  const auto unmask = [](std::uint32_t masked) {
    const std::uint32_t rotated = masked - 0xa282ead8U;
    return (rotated >> 17) | (rotated << 15);
  };
  std::vector<std::string> found;
  for (std::size_t at = 0; at < file.size();) {
    const auto length = read<std::uint64_t>(file, at);
    EXPECT_EQ(unmask(read<std::uint32_t>(file, at + 8)), plain_crc(file.substr(at, 8)));
    found.push_back(file.substr(at + 12, length));
    EXPECT_EQ(unmask(read<std::uint32_t>(file, at + 12 + length)), plain_crc(found.back()));
    at += 16 + length;
  }
  return found;
}

// The fields of a protobuf message by number: raw bytes of each, in order.
struct Field {
  int number;
  std::uint64_t varint = 0;
  std::string bytes;
};
std::vector<Field> fields(const std::string& message) {
  std::vector<Field> found;
  std::size_t at = 0;
  const auto varint = [&] {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(message.at(at++));
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const std::uint64_t tag = varint();
    Field field{.number = static_cast<int>(tag >> 3), .bytes = {}};
    std::size_t length = 0;
    switch (tag & 7) {
      case 0:
        field.varint = varint();
        break;
      case 1:
        length = 8;
        break;
      case 2:
        length = varint();
        break;
      case 5:
        length = 4;
        break;
      default:
        ADD_FAILURE() << "wire type " << (tag & 7);
        return found;
    }
    field.bytes = message.substr(at, length);
    at += length;
    found.push_back(field);
  }
  return found;
}

std::string only_file(const std::string& folder, std::size_t index = 0) {
  const auto names = io::posix().list(folder);
  EXPECT_GT(names.size(), index);
  EXPECT_NE(names[index].find("tfevents"), std::string::npos);
  return io::read_text(io::posix(), io::join(folder, names[index]));
}

TEST(EventFile, KnowsTheCheckValueOfCrc32c) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(EventFile, HoldsScalarsThatAPlainDecoderReads) {
  const testing::TempDir dir;
  const std::string folder = dir / "tensorboard";
  {
    EventFile file(io::posix(), folder, 0, 1700000000.25);
    file.add(300, 1700000001.5, {{"train/loss", 2.5}, {"train/lr", 1e-3}});
    file.add(301, 1700000002, {{"train/loss", std::numeric_limits<double>::quiet_NaN()}});
  }
  const auto found = records(only_file(folder));
  ASSERT_EQ(found.size(), 3U);
  const auto version = fields(found[0]);
  ASSERT_EQ(version.size(), 3U);
  EXPECT_EQ(read<double>(version[0].bytes, 0), 1700000000.25);
  EXPECT_EQ(version[2].number, 3);
  EXPECT_EQ(version[2].bytes, "brain.Event:2");

  const auto event = fields(found[1]);
  ASSERT_EQ(event.size(), 3U);
  EXPECT_EQ(event[0].number, 1);
  EXPECT_EQ(read<double>(event[0].bytes, 0), 1700000001.5);
  EXPECT_EQ(event[1].number, 2);
  EXPECT_EQ(event[1].varint, 300U);
  EXPECT_EQ(event[2].number, 5);
  std::map<std::string, float> scalars;
  for (const Field& value : fields(event[2].bytes)) {
    const auto parts = fields(value.bytes);
    ASSERT_EQ(parts.size(), 2U);
    scalars[parts[0].bytes] = read<float>(parts[1].bytes, 0);
  }
  EXPECT_EQ(scalars, (std::map<std::string, float>{{"train/loss", 2.5F}, {"train/lr", 1e-3F}}));
  EXPECT_TRUE(fields(fields(found[2])[2].bytes).empty());  // NaN is left out
}

TEST(EventFile, TellsReadersToDropLaterStepsOnAResume) {
  const testing::TempDir dir;
  EventFile(io::posix(), dir.path(), 0, 1700000000).add(9, 1700000000, {{"a", 1}});
  EventFile(io::posix(), dir.path(), 5, 1700000000).add(6, 1700000000, {{"a", 2}});
  const auto found = records(only_file(dir.path(), 1));
  ASSERT_EQ(found.size(), 3U);
  const auto event = fields(found[1]);
  EXPECT_EQ(event[1].varint, 6U);
  ASSERT_EQ(event[2].number, 7);                       // session_log
  EXPECT_EQ(fields(event[2].bytes).at(0).varint, 1U);  // START
}

}  // namespace
}  // namespace memlayers::train
