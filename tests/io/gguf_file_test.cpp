// SPDX-License-Identifier: Apache-2.0
#include "io/gguf/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>

#include "support/gguf_bytes.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::io::gguf {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::gguf_string;
using memlayers::testing::GgufBytes;
using memlayers::testing::little_endian;
using memlayers::testing::resident_bytes;
using memlayers::testing::says;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;

constexpr std::uint64_t kHuge = std::numeric_limits<std::int64_t>::max();

GgufBytes good() {
  GgufBytes file;
  file.text("general.architecture", "llama");
  file.number("n", 7);
  file.raw("small", 1, little_endian(std::int8_t{-3}));
  file.raw("wide", 10, little_endian(~std::uint64_t{0}));
  file.real("eps", 1e-5F);
  file.flag("yes", true);
  file.texts("tokens", {"a", "", "bc"});
  file.list("types", 5, std::vector<std::int32_t>{1, -2, 3});
  file.list("scores", 6, std::vector<float>{0.5F, -1});
  file.floats("w", {3, 2}, {1, 2, 3, 4, 5, 6});
  file.tensor("q", {32, 1}, 8, std::string(34, '\1'));
  return file;
}

class Gguf : public ::testing::Test {
 protected:
  File open(const std::string& bytes) {
    write_file(path_, bytes);
    return File::open(posix(), path_);
  }
  // It always names the file, in one line.
  std::string error(const std::string& bytes) {
    const std::string message = error_of([&] { open(bytes); });
    EXPECT_TRUE(says(message, {path_ + ": "}));
    EXPECT_LT(message.size(), 600U);
    EXPECT_EQ(message.find('\n'), std::string::npos);
    return message;
  }
  std::string error(const GgufBytes& file) { return error(file.bytes()); }
  TempDir folder_;
  std::string path_ = folder_ / "model.gguf";
};

TEST_F(Gguf, ReadsKeysAndTensorsOfBothVersions) {
  for (const std::uint32_t version : {2U, 3U}) {
    GgufBytes bytes = good();
    bytes.version = version;
    const File file = open(bytes.bytes());
    const Metadata& keys = file.metadata();
    EXPECT_EQ(keys.at("general.architecture").string(), "llama");
    EXPECT_EQ(keys.at("n").integer(0, 7), 7);
    EXPECT_EQ(keys.at("small").integer(-3, 0), -3);
    EXPECT_EQ(keys.at("eps").number(), 1e-5);  // not what 1e-5 is as a float32
    EXPECT_TRUE(keys.at("yes").boolean());
    EXPECT_EQ(keys.at("tokens").strings(), (std::vector<std::string>{"a", "", "bc"}));
    EXPECT_EQ(keys.at("types").integers(), (std::vector<std::int64_t>{1, -2, 3}));
    EXPECT_EQ(keys.at("scores").numbers(), (std::vector<float>{0.5F, -1}));
    ASSERT_EQ(file.tensors().size(), 2U);
    const Tensor& w = file.tensors().at("w");
    EXPECT_EQ(w.type->name, "F32");
    EXPECT_EQ(w.shape, (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(w.bytes.size(), 24U);
    EXPECT_EQ(file.tensors().at("q").bytes.size(), 34U);
  }
}

TEST_F(Gguf, AnyPowerOfTwoAligns) {
  for (const std::uint32_t alignment : {1U, 2U, 8U, 64U, 4096U}) {
    GgufBytes bytes;
    bytes.number("general.alignment", alignment);
    bytes.alignment = alignment;
    bytes.tensor("h", {3}, 1, "abcdef");
    bytes.floats("w", {1}, {0.75F});
    const File file = open(bytes.bytes());
    float number = 0;
    file.tensors().at("w").type->decode(file.tensors().at("w").bytes.data(), 1, &number);
    EXPECT_EQ(number, 0.75F) << alignment;
  }
  for (const std::uint32_t alignment : {0U, 3U, 48U}) {
    GgufBytes bytes;
    bytes.number("general.alignment", alignment);
    EXPECT_TRUE(says(error(bytes), {"general.alignment: expected"})) << alignment;
  }
}

TEST_F(Gguf, EveryTruncationIsAnError) {
  GgufBytes bytes = good();
  const std::string whole = bytes.bytes();
  const std::size_t end = whole.size() - 30;  // padding behind the last tensor
  for (std::size_t size = 0; size < end; ++size) {
    EXPECT_THROW(open(whole.substr(0, size)), Error) << size << " bytes";
  }
  open(whole.substr(0, end));
}

TEST_F(Gguf, AFlippedBitIsAnErrorOrTensorsInsideTheFile) {
  const std::string whole = good().bytes();
  int errors = 0;
  for (std::size_t at = 0; at < good().head().size(); ++at) {
    for (int bit = 0; bit < 8; bit += 3) {
      std::string altered = whole;
      altered[at] = static_cast<char>(altered[at] ^ (1 << bit));
      try {
        const File file = open(altered);
        for (const auto& [name, tensor] : file.tensors()) {
          EXPECT_EQ(static_cast<std::int64_t>(tensor.bytes.size()) / tensor.type->block_bytes,
                    numbers_in(tensor.shape) / tensor.type->block_numbers);
        }
      } catch (const Error&) {
        ++errors;
      }
    }
  }
  EXPECT_GT(errors, 300);
}

TEST_F(Gguf, AnotherKindOfFileIsNamed) {
  EXPECT_TRUE(says(error(std::string()), {"expected a GGUF file, got one that begins with \"\""}));
  EXPECT_TRUE(says(error(std::string("<!DOCTYPE html>")), {"got a web page"}));
  EXPECT_TRUE(says(error(std::string("gguf....")), {"begins with \"gguf\""}));
  GgufBytes bytes = good();
  bytes.version = 0x03000000;
  EXPECT_TRUE(says(error(bytes), {"expected a little-endian GGUF file, got a big-endian one"}));
  for (const std::uint32_t version : {0U, 1U, 4U}) {
    bytes.version = version;
    EXPECT_TRUE(says(error(bytes), {"version 2 or 3, got " + std::to_string(version)}));
  }
}

TEST_F(Gguf, CountsAndLengthsBeyondTheFileTakeNoMemory) {
  const std::int64_t before = resident_bytes();
  for (const std::uint64_t count : {std::uint64_t{1000}, kHuge, ~std::uint64_t{0} - 100}) {
    GgufBytes bytes = good();
    bytes.more_tensors = count;
    EXPECT_TRUE(says(error(bytes), {"a number of tensors of at most"}));
    bytes.more_tensors = 0;
    bytes.more_keys = count;
    EXPECT_TRUE(says(error(bytes), {"a number of keys of at most"}));
    const std::string length = little_endian(count);
    for (const auto& [type, value] : std::vector<std::pair<std::uint32_t, std::string>>{
             {8, length + "abc"},
             {9, little_endian(std::uint32_t{8}) + length},
             {9, little_endian(std::uint32_t{0}) + length},
             {9, little_endian(std::uint32_t{12}) + length},
             {9, little_endian(std::uint32_t{8}) + little_endian(std::uint64_t{1}) + length}}) {
      GgufBytes one;
      one.raw("k", type, value);
      EXPECT_TRUE(says(error(one), {"expected a", "offset"})) << type;
    }
    GgufBytes key;
    key.key_bytes = length + "k";
    key.more_keys = 1;
    key.data = std::string(64, '\0');
    EXPECT_TRUE(says(error(key), {"expected a key of", "bytes"}));
  }
  EXPECT_LT(resident_bytes() - before, 16 << 20);
}

TEST_F(Gguf, EachLieOfAKeyIsNamed) {
  const auto with = [&](std::uint32_t type, const std::string& value) {
    GgufBytes bytes;
    bytes.raw("k\n", type, value);
    return error(bytes);
  };
  EXPECT_TRUE(says(with(13, "abcd"), {"key \"k\\n\": expected a type from 0 to 12, got 13"}));
  const std::string nested = little_endian(std::uint32_t{9}) + little_endian(std::uint64_t{1}) +
                             little_endian(std::uint32_t{4}) + little_endian(std::uint64_t{0});
  EXPECT_TRUE(
      says(with(9, nested), {"expected an array of numbers or strings, got one of arrays"}));
  GgufBytes twice = good();
  twice.number("n", 8);
  EXPECT_TRUE(says(error(twice), {"key \"n\": expected each key once, got it twice"}));
}

TEST_F(Gguf, AValueOfAnotherTypeIsNamedWhereItIsAskedFor) {
  GgufBytes bytes = good();
  bytes.raw("maybe", 7, "\2");
  bytes.real("nan", std::numeric_limits<float>::quiet_NaN());
  bytes.text("bad", "a\xFF");
  bytes.texts("none", {});
  bytes.list("mixed", 4, std::vector<std::uint32_t>{8, 9});
  bytes.list("huge", 10, std::vector<std::uint64_t>{~std::uint64_t{0}});
  const File file = open(bytes.bytes());
  const auto said = [&](const auto& act) { return error_of([&] { act(file.metadata()); }); };
  using Keys = const Metadata&;
  EXPECT_TRUE(
      says(said([](Keys k) { k.at("missing"); }), {path_, "a key \"missing\", found none"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("n").integer(8, 9); }),
                   {path_ + ": n: expected an integer from 8 to 9, got 7 of type uint32"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("wide").integer(0, kHuge); }), {"2^63 or more"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("eps").integer(0, 1); }), {"of type float32"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("n").string(); }), {"expected a string"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("bad").string(); }), {"bad: expected UTF-8"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("n").boolean(); }), {"expected true or false"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("maybe").boolean(); }), {"got 2 of type bool"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("nan").number(); }), {"expected a finite number"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("tokens").number(); }),
                   {"got an array of 3 elements of type string"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("types").strings(); }), {"an array of strings"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("tokens").integers(); }), {"an array of integers"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("types").numbers(); }), {"an array of float32"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("n").count(); }), {"expected an array"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("huge").integers(); }), {"integers below 2^63"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("mixed").same_integer(0, 9); }), {"the same for all"}));
  EXPECT_TRUE(says(said([](Keys k) { k.at("none").same_integer(0, 9); }), {"array of integers"}));
  EXPECT_EQ(file.metadata().at("n").same_integer(0, 9), 7);
}

TEST_F(Gguf, EachLieOfATensorIsNamed) {
  const auto with = [&](const auto& change) {
    GgufBytes bytes = good();
    change(bytes.infos.front());
    return error(bytes);
  };
  using Info = GgufBytes::Info;
  const std::string w = "tensor \"w\": ";
  EXPECT_TRUE(
      says(with([](Info& i) { i.extents = {}; }), {w + "expected 1 to 4 dimensions, got 0"}));
  EXPECT_TRUE(says(with([](Info& i) { i.extents = {1, 1, 1, 1, 1}; }), {w, "got 5"}));
  for (const std::vector<std::uint64_t>& extents : std::vector<std::vector<std::uint64_t>>{
           {0, 2}, {3, 0}, {~std::uint64_t{0}, 2}, {kHuge, 2}, {1ull << 32, 1ull << 32, 4}}) {
    EXPECT_TRUE(says(with([&](Info& i) { i.extents = extents; }), {w + "expected dimensions"}));
  }
  EXPECT_TRUE(says(with([](Info& i) { i.extents = {kHuge}; }), {w + "expected a size below 2^63"}));
  EXPECT_TRUE(says(with([](Info& i) { i.type = 4; }), {w + "expected a known type, got 4"}));
  EXPECT_TRUE(says(with([](Info& i) { i.type = 4096; }), {"got 4096"}));
  EXPECT_TRUE(
      says(with([](Info& i) { i.type = 12; }),
           {w + "expected rows of a multiple of 256 numbers, as type Q4_K has them, got 3"}));
  EXPECT_TRUE(says(with([](Info& i) { i.offset = 4; }), {w, "multiple of 32, got 4"}));
  for (const std::uint64_t offset :
       {std::uint64_t{96}, std::uint64_t{1} << 20, ~std::uint64_t{31}}) {
    EXPECT_TRUE(says(with([&](Info& i) { i.offset = offset; }), {w + "expected data inside"}));
  }
  EXPECT_TRUE(says(with([](Info& i) { i.offset = 32; }),
                   {"expected tensors that do not overlap, got", "\"w\"", "\"q\"", "offset 32"}));
  EXPECT_TRUE(says(with([](Info& i) { i.name = "q"; }),
                   {"tensor \"q\": expected each name once, got it twice"}));
}

TEST_F(Gguf, TheOtherPartsOfASplitFileAreRead) {
  const auto part = [](std::uint16_t number, std::uint16_t count, const std::string& tensor) {
    GgufBytes bytes;
    bytes.raw("split.no", 2, little_endian(number));
    bytes.raw("split.count", 2, little_endian(count));
    bytes.raw("split.tensors.count", 5, little_endian(std::int32_t{2}));
    if (!tensor.empty()) bytes.floats(tensor, {1}, {1});
    return bytes.bytes();
  };
  const std::string first = folder_ / "m-00001-of-00002.gguf",
                    second = folder_ / "m-00002-of-00002.gguf";
  const auto opens = [&](const std::string& path) { return File::open(posix(), path); };
  const auto said = [&](const std::string& path) { return error_of([&] { opens(path); }); };
  write_file(first, part(0, 2, "a"));
  EXPECT_TRUE(says(said(first), {second}));
  write_file(second, part(1, 2, "b"));
  EXPECT_EQ(opens(first).tensors().size(), 2U);
  EXPECT_TRUE(says(said(second), {"expected the first part of a model, " + first, "got part 2"}));
  write_file(second, part(1, 2, "a"));
  EXPECT_TRUE(says(said(first), {second + ": tensor \"a\": also in another part"}));
  write_file(second, part(1, 2, ""));
  EXPECT_TRUE(says(said(first), {"split.tensors.count: expected 1, as many as all parts have"}));
  write_file(second, part(0, 2, "b"));
  EXPECT_TRUE(says(said(first), {second + ": expected part 2 of 2, got 1 of 2"}));
  write_file(path_, part(0, 2, "a"));
  EXPECT_TRUE(says(said(path_), {"expected a name that ends with -00001-of-00002.gguf"}));
}

TEST_F(Gguf, WhatIsNoFileIsRefusedAtOnce) {
  EXPECT_TRUE(says(error_of([&] { File::open(posix(), path_); }), {path_}));
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_TRUE(says(error_of([&] { File::open(posix(), path_); }), {path_, "FIFO"}));
  EXPECT_THROW(File::open(posix(), folder_ / "."), Error);
}

TEST_F(Gguf, FilesAreKnownByNameOrByTheirBeginning) {
  write_file(path_, "");
  EXPECT_TRUE(is_gguf(posix(), path_));
  EXPECT_FALSE(is_gguf(posix(), folder_ / "."));
  EXPECT_FALSE(is_gguf(posix(), folder_ / "missing.gguf"));
  const std::string other = folder_ / "model";
  write_file(other, "GGU");
  EXPECT_FALSE(is_gguf(posix(), other));
  write_file(other, "GGUF");
  EXPECT_TRUE(is_gguf(posix(), other));
}

}  // namespace
}  // namespace memlayers::io::gguf
