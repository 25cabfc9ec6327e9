// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "support/failing_file_system.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::io {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::read_file;
using memlayers::testing::says;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;

std::string bytes_of(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t size = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + std::string(data_bytes, 'x');
}

class Safetensors : public ::testing::Test {
 protected:
  SafetensorsFile open(const std::string& bytes) {
    write_file(path_, bytes);
    return SafetensorsFile::open(posix(), path_);
  }
  // What is said of a file with this header and so many bytes of data. It always names the file.
  std::string error(const std::string& header, std::size_t data_bytes) {
    const std::string message = error_of([&] { open(bytes_of(header, data_bytes)); });
    EXPECT_TRUE(says(message, {path_}));
    EXPECT_LT(message.size(), 600U);
    return message;
  }
  TempDir folder_;
  std::string path_ = folder_ / "model.safetensors";
};

std::string tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

std::string named(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":)" + tensor(dtype, shape, offsets) + "}";
}

const std::string kGood = R"({"__metadata__":{"format":"pt"},"w":)" +
                          tensor("F32", "[2,3]", "[0,24]") + R"(,"b":)" +
                          tensor("BF16", "[2]", "[24,28]") + "}";

TEST_F(Safetensors, ReadsShapesTypesBytesAndMetadata) {
  const SafetensorsFile file = open(bytes_of(kGood, 28));
  ASSERT_EQ(file.tensors().size(), 2U);
  EXPECT_EQ(file.at("w").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(file.at("w").type, ElementType::kF32);
  EXPECT_EQ(file.at("w").bytes.size(), 24U);
  EXPECT_EQ(file.at("b").bytes.data(), file.at("w").bytes.data() + 24);
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

TEST_F(Safetensors, ScalarsAndEmptyTensorsAreTensors) {
  const SafetensorsFile file =
      open(bytes_of(R"({"s":)" + tensor("F64", "[]", "[0,8]") + R"(,"e":)" +
                        tensor("F32", "[0,9223372036854775807]", "[8,8]") + "}",
                    8));
  EXPECT_TRUE(file.at("s").shape.empty());
  EXPECT_EQ(file.at("s").bytes.size(), 8U);
  EXPECT_TRUE(file.at("e").bytes.empty());
}

TEST_F(Safetensors, EveryTruncationIsAnError) {
  const std::string whole = bytes_of(kGood, 28);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(open(whole.substr(0, size)), Error) << size << " bytes";
  }
  EXPECT_THROW(open(whole + "x"), Error);
}

TEST_F(Safetensors, AFlippedBitIsAnErrorOrTensorsInsideTheFile) {
  const std::string whole = bytes_of(kGood, 28);
  int errors = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string altered = whole;
      altered[at] = static_cast<char>(altered[at] ^ (1 << bit));
      try {
        const SafetensorsFile file = open(altered);
        std::size_t total = 0;
        for (const auto& [name, view] : file.tensors()) {
          std::int64_t numbers = 1;
          for (const std::int64_t extent : view.shape) numbers *= extent;
          EXPECT_EQ(static_cast<std::int64_t>(view.bytes.size()),
                    numbers * element_bytes(view.type));
          total += view.bytes.size();
        }
        EXPECT_EQ(total, 28U);
      } catch (const Error&) {
        ++errors;
      }
    }
  }
  EXPECT_GT(errors, 800);  // most of the header's 1300 bits
}

TEST_F(Safetensors, RefusesEachLieOfTheHeaderByName) {
  EXPECT_TRUE(says(error_of([&] { open(std::string(7, 'a')); }), {path_, "7 bytes"}));
  EXPECT_TRUE(says(error_of([&] { open(std::string(8, '\xff')); }), {"18446744073709551615"}));
  std::string past = bytes_of(kGood, 28);
  past[1] = 1;  // 256 bytes more than there are
  EXPECT_TRUE(says(error_of([&] { open(past); }), {path_, "expected a header of at most"}));
  EXPECT_TRUE(says(error(R"({"w":)", 0), {"header: expected JSON"}));
  EXPECT_TRUE(says(error("{\"\xff\":{}}", 0), {"header: expected UTF-8"}));
  EXPECT_TRUE(says(error("[]", 0), {"header: expected a JSON object"}));
  EXPECT_TRUE(says(error("{}", 3), {"expected 0 bytes of data, got 3"}));
  const std::string one = R"("w":)" + tensor("U8", "[4]", "[0,4]");
  EXPECT_TRUE(says(error("{" + one + "," + one + "}", 4), {"\"w\" twice"}));
}

TEST_F(Safetensors, RefusesEachLieOfATensorByName) {
  EXPECT_TRUE(says(error(named("F31", "[1]", "[0,4]"), 4), {"\"w\"", "dtype", "F31"}));
  EXPECT_TRUE(says(error(named("F32", "[-1]", "[0,4]"), 4), {"\"w\"", "shape", "[-1]"}));
  EXPECT_TRUE(says(error(named("F32", "[1.5]", "[0,4]"), 4), {"\"w\"", "shape", "[1.5]"}));
  EXPECT_TRUE(says(error(named("F32", "[\"1\"]", "[0,4]"), 4), {"\"w\"", "shape"}));
  EXPECT_TRUE(says(error(named("F32", "[2]", "[0,4]"), 4), {"\"w\"", "expected 8 bytes"}));
  EXPECT_TRUE(says(error(named("F32", "[1]", "[-4,0]"), 4), {"\"w\"", "data_offsets", "-4"}));
  EXPECT_TRUE(says(error(named("F32", "[1]", "[4,0]"), 4), {"\"w\"", "offsets 4 to 0"}));
  EXPECT_TRUE(says(error(named("F32", "[1]", "[0,8]"), 4), {"\"w\"", "offsets 0 to 8"}));
  EXPECT_TRUE(says(error(named("F32", "[1]", "[0]"), 4), {"\"w\"", "data_offsets"}));
  EXPECT_TRUE(says(error(named("F32", "[1]", "[18446744073709551612,18446744073709551615]"), 4),
                   {"\"w\"", "inside the file"}));
  EXPECT_TRUE(says(error(named("F32", "[4294967296,4294967296]", "[0,0]"), 0),
                   {"\"w\"", "below 2^63 bytes"}));
  EXPECT_TRUE(
      says(error(named("U8", "[18446744073709551615]", "[0,0]"), 0), {"\"w\"", "below 2^63"}));
  EXPECT_TRUE(says(error(R"({"w":3})", 0), {"\"w\"", "expected an object"}));
  EXPECT_TRUE(says(error(R"({"w":{"dtype":"F32","shape":[1]}})", 4), {"\"w\"", "data_offsets"}));
}

TEST_F(Safetensors, RefusesTensorsThatOverlapOrLeaveHoles) {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":)" + tensor("U8", "[4]", a) + R"(,"b":)" + tensor("U8", "[4]", b) + "}";
  };
  EXPECT_NO_THROW(open(bytes_of(two("[4,8]", "[0,4]"), 8)));
  EXPECT_TRUE(says(error(two("[0,4]", "[2,6]"), 6), {"overlap"}));
  EXPECT_TRUE(says(error(two("[0,4]", "[0,4]"), 4), {"overlap"}));
  EXPECT_TRUE(says(error(two("[0,4]", "[5,9]"), 9), {"a hole", "offset 4"}));
  EXPECT_TRUE(says(error(two("[1,5]", "[5,9]"), 9), {"a hole", "offset 0"}));
}

TEST_F(Safetensors, RefusesMetadataThatIsNotStrings) {
  EXPECT_TRUE(says(error(R"({"__metadata__":{"a":1}})", 0), {"__metadata__", "\"a\"", "1"}));
  EXPECT_TRUE(says(error(R"({"__metadata__":["a"]})", 0), {"__metadata__", "object of strings"}));
  EXPECT_TRUE(says(error(R"({"__metadata__":{"a":"b","a":"c"}})", 0), {"\"a\" twice"}));
}

TEST_F(Safetensors, DeeplyNestedJsonIsAnErrorAndNotAStackOverflow) {
  const std::string open_lists(3'000'000, '['), close_lists(3'000'000, ']');
  const std::string deep = open_lists + close_lists;
  EXPECT_TRUE(says(error(deep, 0), {"nested"}));
  EXPECT_TRUE(says(error(R"({"__metadata__":{"a":)" + deep + "}}", 0), {"nested"}));
  EXPECT_TRUE(says(error(named("F32", "[" + deep + "]", "[0,4]"), 4), {"nested"}));
  EXPECT_TRUE(says(error(named("F32", "[1]", "[" + deep + ",4]"), 4), {"nested"}));
  std::string objects;
  for (int i = 0; i < 300'000; ++i) objects += R"({"a":)";
  EXPECT_TRUE(says(error(objects, 0), {"nested"}));
}

TEST_F(Safetensors, WhatStandsForAFileIsNamed) {
  EXPECT_TRUE(says(
      error_of([&] { open("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"); }),
      {path_, "expected a safetensors file, got a Git LFS pointer"}));
  EXPECT_TRUE(says(error_of([&] { open("PK\x03\x04 archive/data.pkl"); }), {"a zip archive"}));
}

TEST_F(Safetensors, NamesAreEscapedAndCut) {
  EXPECT_TRUE(says(error(R"({"\u001b[2J\n":)" + tensor("F31", "[1]", "[0,4]") + "}", 4),
                   {R"("\x1b[2J\n")"}));
  EXPECT_TRUE(says(error(named(std::string(1'000'000, 'A'), "[1]", "[0,4]"), 4), {"AAA..."}));
  EXPECT_TRUE(says(error("{\"" + std::string(1'000'000, 'n') + "\":3}", 4), {"nnn..."}));
}

TEST_F(Safetensors, ManyTensorsTakeTimeInProportion) {  // with their square it would be minutes
  constexpr std::size_t kTensors = 200'000;
  std::string header = "{";
  for (std::size_t i = 0; i < kTensors; ++i) {
    const std::size_t place = kTensors - 1 - i;  // not in the order of the header
    header +=
        (i == 0 ? "\"t" : ",\"t") + std::to_string(i) + "\":" +
        tensor("U8", "[1]", "[" + std::to_string(place) + "," + std::to_string(place + 1) + "]");
  }
  EXPECT_EQ(open(bytes_of(header + "}", kTensors)).tensors().size(), kTensors);
}

TEST_F(Safetensors, AnUnknownTensorIsNamedWithTheNearest) {
  const SafetensorsFile file = open(bytes_of(kGood, 28));
  EXPECT_TRUE(says(error_of([&] { file.at("ww"); }), {path_, "\"ww\"", "nearest is \"w\""}));
}

TEST_F(Safetensors, WhatIsWrittenIsReadBack) {
  const std::string data = "0123456789abcdef";
  const auto part = [&](std::size_t at, std::size_t size) {
    return std::as_bytes(std::span(data)).subspan(at, size);
  };
  for (const std::int64_t alignment : {8, 64, 4096}) {
    const std::string path = folder_ / ("a" + std::to_string(alignment));
    write_safetensors(posix(), path,
                      {{"zeta", ElementType::kF32, {1, 2}, part(0, 8)},
                       {"alpha", ElementType::kI64, {}, part(8, 8)},
                       {"none", ElementType::kU8, {0, 7}, {}}},
                      {{"k", "v\n\"\u00e9"}}, alignment);
    const SafetensorsFile file = SafetensorsFile::open(posix(), path);
    EXPECT_EQ(file.tensors().size(), 3U);
    EXPECT_EQ(std::memcmp(file.at("zeta").bytes.data(), data.data(), 8), 0);
    EXPECT_EQ(std::memcmp(file.at("alpha").bytes.data(), data.data() + 8, 8), 0);
    EXPECT_EQ(file.at("zeta").shape, (std::vector<std::int64_t>{1, 2}));
    EXPECT_EQ(file.at("none").shape, (std::vector<std::int64_t>{0, 7}));
    EXPECT_EQ(file.metadata().at("k"), "v\n\"\u00e9");
    // A mapping begins on a page, so this is the offset in the file.
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.at("zeta").bytes.data()) %
                  static_cast<std::uintptr_t>(alignment),
              0U);
  }
}

TEST_F(Safetensors, WritesNoFileThatItCouldNotRead) {
  const std::string data = "01234567";
  const auto bytes = std::as_bytes(std::span(data));
  const auto write = [&](const std::vector<TensorToWrite>& tensors) {
    return error_of([&] { write_safetensors(posix(), path_, tensors); });
  };
  EXPECT_TRUE(says(write({{"w", ElementType::kF32, {3}, bytes}}), {path_, "\"w\"", "12", "8"}));
  EXPECT_TRUE(
      says(write({{"w", ElementType::kF32, {2}, bytes}, {"w", ElementType::kF32, {2}, bytes}}),
           {path_, "\"w\"", "twice"}));
  EXPECT_TRUE(says(write({{"w\xff", ElementType::kF32, {2}, bytes}}), {path_, "UTF-8"}));
  EXPECT_FALSE(posix().exists(path_));
  write_file(path_, "mine");
  EXPECT_THROW(write_safetensors(posix(), path_, {}), Error);
  EXPECT_EQ(read_file(path_), "mine") << "a file that was there stays";
}

TEST_F(Safetensors, BeginsNoFileThatTheDiskHasNoRoomFor) {
  class Small : public memlayers::testing::FailingFileSystem {
   public:
    std::optional<std::uint64_t> free_bytes(const std::string&) override { return 4096; }
  } small;
  const std::vector<std::byte> bytes(4096);
  const TensorToWrite tensor{"w", ElementType::kU8, {4096}, bytes};
  const std::string message = error_of([&] { write_safetensors(small, path_, {tensor}); });
  EXPECT_TRUE(says(message, {folder_.path() + ": expected room for ", "(4096 bytes)"}));
  EXPECT_EQ(small.calls(), 0) << "nothing was begun";
}

TEST_F(Safetensors, WritesNoNumberThatIsNotFinite) {
  const auto write = [&](ElementType type, auto number) {
    const std::vector<decltype(number)> numbers{0, 0, 0, 0, 0, number, 0};
    write_safetensors(posix(), path_, {{"w", type, {7}, std::as_bytes(std::span(numbers))}});
  };
  const auto refuses = [&](ElementType type, auto number) {
    EXPECT_TRUE(says(error_of([&] { write(type, number); }), {path_, "\"w\"", "finite"}));
    EXPECT_FALSE(posix().exists(path_));
  };
  const auto writes = [&](ElementType type, auto number) {
    EXPECT_NO_THROW(write(type, number));
    posix().unlink(path_);
  };
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    refuses(ElementType::kF32, bad);
    refuses(ElementType::kF64, static_cast<double>(bad));
  }
  writes(ElementType::kF32, std::numeric_limits<float>::max());
  writes(ElementType::kF64, std::numeric_limits<double>::lowest());
  for (const int bad : {0x7f80, 0xff80, 0x7f81}) {
    refuses(ElementType::kBF16, static_cast<std::uint16_t>(bad));
  }
  writes(ElementType::kBF16, std::uint16_t{0x7f7f});
  refuses(ElementType::kF16, std::uint16_t{0x7c00});
  writes(ElementType::kF16, std::uint16_t{0x7bff});
  writes(ElementType::kI32, -1);
}

TEST_F(Safetensors, EveryTypeHasItsNameAndSize) {
  const std::vector<std::pair<std::string, std::int64_t>> types{
      {"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"I16", 2},     {"U16", 2},
      {"F16", 2},  {"BF16", 2}, {"I32", 4}, {"U32", 4},     {"F32", 4},
      {"F64", 8},  {"I64", 8},  {"U64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
  for (const auto& [name, size] : types) {
    const SafetensorsFile file = open(bytes_of(
        named(name, "[1]", "[0," + std::to_string(size) + "]"), static_cast<std::size_t>(size)));
    EXPECT_EQ(element_name(file.at("w").type), name);
    EXPECT_EQ(element_bytes(file.at("w").type), size) << name;
  }
}

class Shards : public Safetensors {
 protected:
  void shard(const std::string& name, const std::string& tensor_name) {
    write_file(folder_ / name,
               bytes_of(R"({")" + tensor_name + R"(":)" + tensor("U8", "[4]", "[0,4]") + "}", 4));
  }
  void index(const std::string& text) {
    write_file(folder_ / "model.safetensors.index.json", text);
  }
  std::string folder_error() {
    return error_of([&] { SafetensorsFolder::open(posix(), folder_.path()); });
  }
};

TEST_F(Shards, AreReadAsOneFolder) {
  shard("a.safetensors", "x");
  shard("b.safetensors", "y");
  index(R"({"metadata":{},"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  EXPECT_EQ(SafetensorsFolder::open(posix(), folder_.path()).tensors().size(), 2U);
}

TEST_F(Shards, WithoutAnIndexThereIsOneFile) {
  EXPECT_TRUE(says(folder_error(), {"model.safetensors"}));
  shard("model.safetensors", "x");
  shard("other.safetensors", "y");
  EXPECT_EQ(SafetensorsFolder::open(posix(), folder_.path()).tensors().size(), 1U);
}

TEST_F(Shards, AreNotReadBesideASingleFile) {
  shard("model.safetensors", "new");
  shard("a.safetensors", "old");
  index(R"({"weight_map":{"old":"a.safetensors"}})");
  const auto folder = SafetensorsFolder::open(posix(), folder_.path());
  EXPECT_EQ(folder.tensors().size(), 1U);
  EXPECT_TRUE(folder.tensors().contains("new"));
}

TEST_F(Shards, AMissingShardATwiceHeldTensorAndALyingIndexAreErrors) {
  shard("a.safetensors", "x");
  index(R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  EXPECT_TRUE(says(folder_error(), {"b.safetensors"}));
  shard("b.safetensors", "x");
  EXPECT_TRUE(says(folder_error(), {"\"x\"", "b.safetensors"}));
  shard("b.safetensors", "z");
  EXPECT_TRUE(says(folder_error(), {"\"y\"", "b.safetensors"})) << "the index says y is there";
}

TEST_F(Shards, AnIndexReachesNoOtherFolder) {
  for (const char* name : {"../a.safetensors", "/etc/passwd", "sub/a.safetensors", "", "..", "."}) {
    index(R"({"weight_map":{"x":")" + std::string(name) + R"("}})");
    EXPECT_TRUE(says(folder_error(), {folder_.path()})) << name;
  }
  for (const char* text : {"", "[]", "{}", R"({"weight_map":[1]})", R"({"weight_map":null})",
                           R"({"weight_map":{"x":1}})"}) {
    index(text);
    EXPECT_TRUE(says(folder_error(), {"model.safetensors.index.json: "})) << text;
  }
}

}  // namespace
}  // namespace memlayers::io
