// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "io/gguf/decode.h"
#include "io/gguf/encode.h"
#include "io/gguf/export.h"
#include "io/gguf/file.h"
#include "io/gguf/source.h"
#include "io/gguf/writer.h"
#include "io/write_model.h"
#include "kernels/float16.h"
#include "support/failing_file_system.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_gguf.h"

namespace memlayers::io::gguf {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::FailingFileSystem;
using memlayers::testing::Failure;
using memlayers::testing::says;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(GgufEncode, HalvesComeBackAndWhatIsBetweenGoesToTheEvenOne) {
  for (std::uint32_t bits = 0; bits < 0x7C00; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = kernels::half_to_float(half);
    const float next =
        bits + 1 == 0x7C00 ? 65536 : kernels::half_to_float(static_cast<std::uint16_t>(bits + 1));
    ASSERT_EQ(kernels::float_to_half(value), half) << value;
    ASSERT_EQ(kernels::float_to_half(-value), half | 0x8000) << value;
    const float middle = value + (next - value) / 2;
    ASSERT_EQ(kernels::float_to_half(middle), bits + bits % 2) << middle;
    ASSERT_EQ(kernels::float_to_half(std::nextafter(middle, 0.0F)), bits) << middle;
    ASSERT_EQ(kernels::float_to_half(std::nextafter(middle, kInfinity)), bits + 1) << middle;
  }
  EXPECT_EQ(kernels::float_to_half(kInfinity), 0x7C00);
  EXPECT_EQ(kernels::float_to_half(-1e30F), 0xFC00);
  EXPECT_TRUE(std::isnan(kernels::half_to_float(kernels::float_to_half(NAN))));
  EXPECT_EQ(kernels::float_to_half(1e-45F), 0);
}

TEST(GgufEncode, BFloat16IsTheNearestAndEvenOne) {
  EXPECT_EQ(bfloat16_of_float(1.0F), 0x3F80);
  EXPECT_EQ(bfloat16_of_float(1.00390625F), 0x3F80);  // halfway up to the odd one
  EXPECT_EQ(bfloat16_of_float(1.01171875F), 0x3F82);  // halfway down from the odd one
  EXPECT_EQ(bfloat16_of_float(-1.0040F), 0xBF81);
  EXPECT_EQ(bfloat16_of_float(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_EQ(bfloat16_of_float(NAN) & 0x7FC0, 0x7FC0);
}

TEST(GgufEncode, BytesAreRoundedAwayFromZero) {
  std::vector<float> numbers(64, 0);
  numbers[0] = 127;
  numbers[1] = 2.5F;
  numbers[2] = -2.5F;
  numbers[3] = -127;
  numbers[32] = 1e-42F;  // of which no float16 scale is left
  std::vector<std::byte> blocks(68);
  encode_q8_0(numbers.data(), 2, blocks.data());
  std::vector<float> back(64);
  decode_q8_0(blocks.data(), 2, back.data());
  EXPECT_EQ(back[0], 127);
  EXPECT_EQ(back[1], 3);
  EXPECT_EQ(back[2], -3);
  EXPECT_EQ(back[3], -127);
  EXPECT_TRUE(std::all_of(back.begin() + 32, back.end(), [](float number) { return number == 0; }));
}

class GgufWriter : public ::testing::Test {
 protected:
  std::unique_ptr<ModelSource> source() {
    testing::TinyGguf tiny{.dim = 32, .heads = 2, .ff_dim = 64};
    write_file(from_, tiny.file().bytes());
    return open_source(posix(), from_);
  }
  void write(FileSystem& fs, const ModelSource& model, const char* type = "Q8_0") {
    Writer keys;
    put_config(keys, model.config(), *find_type(type), "here");
    write_model(fs, model, keys, *find_type(type), to_, [](std::int64_t) {});
  }
  std::size_t files() {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(folder_ / "."), {}));
  }
  TempDir folder_;
  std::string from_ = folder_ / "from.gguf", to_ = folder_ / "to.gguf";
};

TEST_F(GgufWriter, KeysComeBack) {
  Writer writer;
  writer.text("t", "text");
  writer.flag("f", true);
  writer.count("c", 7);
  writer.number("n", 1e-6);
  writer.texts("ts", {"a", ""});
  writer.integers("is", {-1, 2});
  writer.numbers("ns", {0.5F});
  writer.write(posix(), to_,
               {{"w", find_type(kTypeF32), {2, 3}, [](std::int64_t first, std::span<float> out) {
                   for (float& number : out) number = static_cast<float>(first++);
                 }}});
  const File file = File::open(posix(), to_);
  const Metadata& keys = file.metadata();
  EXPECT_EQ(keys.at("t").string(), "text");
  EXPECT_TRUE(keys.at("f").boolean());
  EXPECT_EQ(keys.at("c").integer(0, 9), 7);
  EXPECT_EQ(keys.at("n").number(), 1e-6);
  EXPECT_EQ(keys.at("ts").strings(), (std::vector<std::string>{"a", ""}));
  EXPECT_EQ(keys.at("is").integers(), (std::vector<std::int64_t>{-1, 2}));
  EXPECT_EQ(keys.at("ns").numbers(), std::vector<float>{0.5F});
  const Tensor& tensor = file.tensors().at("w");
  EXPECT_EQ(tensor.shape, (std::vector<std::int64_t>{2, 3}));
  std::vector<float> numbers(6);
  tensor.type->decode(tensor.bytes.data(), 6, numbers.data());
  EXPECT_EQ(numbers, (std::vector<float>{0, 1, 2, 3, 4, 5}));
}

TEST_F(GgufWriter, AModelComesBack) {
  const auto before = source();
  write(posix(), *before, "F32");
  const auto after = open_source(posix(), to_);
  EXPECT_EQ(after->weights().size(), before->weights().size());
  for (const auto& [name, weight] : before->weights()) {
    std::vector<float> one(static_cast<std::size_t>(numbers_in(weight.shape))), other(one.size());
    read_floats(*before, name, 0, one);
    read_floats(*after, name, 0, other);
    EXPECT_EQ(one, other) << name;
  }
  EXPECT_TRUE(says(error_of([&] { write(posix(), *before); }), {to_}));  // it is there
}

TEST_F(GgufWriter, WhatIsNoNumberIsNamed) {
  Writer writer;
  const auto put = [&](float number, const char* type) {
    return error_of([&] {
      writer.write(posix(), to_,
                   {{"w", find_type(type), {32}, [number](std::int64_t, std::span<float> out) {
                       std::fill(out.begin(), out.end(), number);
                     }}});
    });
  };
  EXPECT_TRUE(
      says(put(NAN, "F32"), {"tensor \"w\": expected numbers that type F32 holds, got nan"}));
  EXPECT_TRUE(says(put(65520, "F16"), {"type F16 holds, got 65520"}));
  EXPECT_TRUE(says(put(1e7F, "Q8_0"), {"type Q8_0 holds"}));
  EXPECT_EQ(files(), 0U);
}

TEST_F(GgufWriter, NothingIsHalfWrittenWhateverFails) {
  const auto model = source();
  FailingFileSystem counting;
  write(counting, *model);
  std::filesystem::remove(to_);
  ASSERT_GT(counting.calls(), 5);
  for (std::int64_t call = 1; call < counting.calls(); ++call) {
    for (const Failure failure : {Failure::kIoError, Failure::kDiskFull}) {
      FailingFileSystem fs(call, failure);
      EXPECT_THROW(write(fs, *model), Error) << call;
      EXPECT_EQ(files(), 1U) << call;
      EXPECT_EQ(fs.open_files(), 0);
    }
  }
}

TEST_F(GgufWriter, NoFolderIsHalfWrittenWhateverFails) {
  const auto model = source();
  const std::string out = folder_ / "model";
  const auto import = [&](FileSystem& fs) {
    write_model_folder(fs, *model, out, DenseType::kFloat32, [](std::int64_t) {});
  };
  FailingFileSystem counting;
  import(counting);
  EXPECT_TRUE(std::filesystem::exists(out + "/model.safetensors"));
  std::filesystem::remove_all(out);
  for (std::int64_t call = 1; call < counting.calls(); ++call) {
    FailingFileSystem fs(call, Failure::kDiskFull);
    EXPECT_THROW(import(fs), Error) << call;
    EXPECT_EQ(files(), 1U) << call;
  }
}

}  // namespace
}  // namespace memlayers::io::gguf
