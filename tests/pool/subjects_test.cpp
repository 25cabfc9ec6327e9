// SPDX-License-Identifier: Apache-2.0
#include "memlayers/subjects.h"

#include <gmock/gmock.h>

#include <random>

#include "io/folder.h"
#include "io/safetensors.h"
#include "pool/folded_subjects.h"
#include "pool/patch.h"
#include "pool/recovery.h"
#include "support/expect_error.h"
#include "support/store_testing.h"
#include "support/temp_dir.h"

namespace memlayers {
namespace {

using ::testing::ElementsAre;
using testing::expect_error;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::SmallPool;
using testing::TempDir;

std::vector<std::uint64_t> ascending(std::mt19937_64& random, std::size_t most) {
  std::set<std::uint64_t> all;
  for (std::size_t i = random() % (most + 1); i > 0; --i) all.insert(random());
  return {all.begin(), all.end()};
}

SubjectRegistry random_registry(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  SubjectRegistry registry{.frame = ascending(random, 9)};
  for (std::size_t i = random() % 5; i > 0; --i) {
    TaughtSubject subject{.grams = ascending(random, 6)};
    std::set<std::int64_t> slots;
    for (std::size_t j = random() % 9; j > 0; --j) {
      slots.insert(static_cast<std::int64_t>(random() >> (1 + random() % 63)));
    }
    subject.slots.assign(slots.begin(), slots.end());
    registry.subjects.push_back(std::move(subject));
  }
  return registry;
}

SubjectRegistry registry_of(std::uint64_t gram) {
  return {.frame = {1, 2}, .subjects = {{.grams = {gram}, .slots = {0, 300, 70000}}}};
}

TEST(SubjectRegistry, ReadsWhatItWrote) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const SubjectRegistry registry = random_registry(seed);
    EXPECT_EQ(subjects_of(to_bytes(registry), "it"), registry) << "seed " << seed;
  }
  const SubjectRegistry ends{.subjects = {{.slots = {0, INT64_MAX}}}};
  EXPECT_EQ(subjects_of(to_bytes(ends), "it"), ends);
}

TEST(SubjectRegistry, HasTheBytesThatTheDocumentTells) {
  const SubjectRegistry registry{.frame = {7}, .subjects = {{.grams = {9}, .slots = {5, 306}}}};
  std::string hex;
  for (const std::byte byte : to_bytes(registry)) {
    constexpr const char* kDigits = "0123456789abcdef";
    hex += kDigits[static_cast<unsigned>(byte) >> 4];
    hex += kDigits[static_cast<unsigned>(byte) & 15];
  }
  EXPECT_EQ(hex.substr(0, hex.size() - 16),
            "6d656d7375626a01"
            "01"
            "0700000000000000"
            "01"
            "01"
            "0900000000000000"
            "02"
            "05"
            "ac02");
}

TEST(SubjectRegistry, RefusesWhatIsCutOrAltered) {
  const std::vector<std::byte> bytes = to_bytes(random_registry(3));
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    expect_error([&] { subjects_of(std::span(bytes).first(length), "it"); }, HasSubstr("it: "));
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::vector<std::byte> altered = bytes;
    altered[i] ^= std::byte{0x10};
    expect_error([&] { subjects_of(altered, "it"); }, HasSubstr("it: expected"));
  }
}

// With a checksum that holds, so that what is behind it is read.
void refuses(std::vector<std::uint8_t> body, const std::string& said) {
  std::vector<std::byte> bytes = to_bytes({});
  bytes.resize(8);
  for (const std::uint8_t byte : body) bytes.push_back(static_cast<std::byte>(byte));
  const std::uint64_t sum = io::xxh3(bytes);
  const auto raw = std::as_bytes(std::span(&sum, 1));
  bytes.insert(bytes.end(), raw.begin(), raw.end());
  expect_error([&] { subjects_of(bytes, "it"); }, HasSubstr(said));
}

TEST(SubjectRegistry, RefusesLiesBehindARightChecksum) {
  refuses({}, "expected a whole number, got the end");
  refuses({0x80}, "expected a whole number, got the end");
  refuses({0x80, 0}, "the shortest form of a number");
  refuses({0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "a number below 2^63");
  refuses({2, 1, 2, 3}, "at most as many entries as fit into 3 bytes, got 2");
  refuses({2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, "hashes that ascend");
  refuses({0, 1}, "at most as many entries as fit into 0 bytes, got 1");
  refuses({0, 1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0},
          "slots below 2^63");
  refuses({0, 0, 0}, "nothing behind the last subject, got 1 bytes");
}

TEST(SubjectRegistry, TogetherHasWhatEachHas) {
  const std::vector<SubjectRegistry> some{{.frame = {1, 3}, .subjects = {{.grams = {5}}}},
                                          {.frame = {2, 3}, .subjects = {{.grams = {4}}}}};
  const SubjectRegistry all = together(some);
  EXPECT_THAT(all.frame, ElementsAre(1, 2, 3));
  EXPECT_THAT(all.subjects, ElementsAre(some[0].subjects[0], some[1].subjects[0]));
  EXPECT_TRUE(together({}).empty());
}

TEST(PatchSubjectsFile, StandInAPatchFileWhereThereAreSome) {
  const TempDir dir;
  Patch patch = SmallPool().patch(1, {1, 3});
  write_patch(dir / "without", patch);
  EXPECT_TRUE(read_patch(dir / "without").subjects.empty());
  EXPECT_FALSE(
      io::SafetensorsFile::open(io::posix(), dir / "without").tensors().contains("subjects"));
  patch.subjects = registry_of(9);
  write_patch(dir / "with", patch);
  EXPECT_EQ(read_patch(dir / "with").subjects, patch.subjects);
  EXPECT_EQ(io::SafetensorsFile::open(io::posix(), dir / "with").metadata().at("version"), "1")
      << "who knows no subjects reads the rows";
}

TEST(PatchSubjectsFile, RefusesATensorThatIsNone) {
  const TempDir dir;
  const std::vector<std::int64_t> slots{1};
  const std::vector<float> row(5);
  const std::vector<std::uint8_t> none{1, 2, 3};
  const auto write = [&](const char* name, io::ElementType type,
                         const std::vector<std::int64_t>& shape, std::span<const std::byte> bytes) {
    io::write_safetensors(io::posix(), dir / name,
                          {{"slots", io::ElementType::kI64, {1}, std::as_bytes(std::span(slots))},
                           {"rows", io::ElementType::kF32, {1, 5}, std::as_bytes(std::span(row))},
                           {"subjects", type, shape, bytes}},
                          {{"format", "memlayers-patch"},
                           {"version", "1"},
                           {"patch", "p"},
                           {"pool", testing::kPoolId},
                           {"width", "5"},
                           {"dtype", "float32"}});
  };
  write("p", io::ElementType::kU8, {3}, std::as_bytes(std::span(none)));
  expect_error([&] { read_patch(dir / "p"); },
               HasSubstr("tensor \"subjects\": expected a registry of subjects of version 1"));
  write("q", io::ElementType::kI64, {1}, std::as_bytes(std::span(slots)));
  expect_error([&] { read_patch(dir / "q"); },
               HasSubstr("tensor \"subjects\": expected U8 [n], got I64"));
}

TEST(PatchMerge, KeepsTheSubjectsOfAll) {
  const SmallPool pool;
  Patch first = pool.patch(1, {1}), second = pool.patch(2, {2});
  first.subjects = registry_of(9);
  second.subjects = registry_of(8);
  const Patch both = merge(std::vector{first, second});
  EXPECT_THAT(both.subjects.subjects,
              ElementsAre(first.subjects.subjects[0], second.subjects.subjects[0]));
}

// The grams of what is taught, patch by patch.
std::vector<std::pair<std::string, std::uint64_t>> taught(const Snapshot& pool) {
  std::vector<std::pair<std::string, std::uint64_t>> all;
  for (const auto& [patch, registry] : pool.subjects()) {
    for (const TaughtSubject& subject : registry->subjects) {
      all.emplace_back(patch, subject.grams.front());
    }
  }
  return all;
}

TEST(StoreSubjects, ComeAndGoWithTheirPatchAndOutliveLogsAndFolding) {
  using Taught = std::pair<std::string, std::uint64_t>;
  const SmallPool pool;
  for (const std::uint64_t inline_bytes : {1U, 1U << 20}) {  // in a segment, and in the log
    const TempDir dir;
    pool.write(io::posix(), dir.path());
    const StoreOptions options{.inline_bytes = inline_bytes, .log_bytes = 1};
    const auto reopened = [&] { return StoreReader::open(dir.path()).snapshot(); };
    Store store = Store::open(dir.path(), options);
    EXPECT_THAT(store.snapshot().subjects(), IsEmpty());
    Patch first = pool.patch(1, {1, 3}), second = pool.patch(2, {3, 5});
    first.subjects = registry_of(11);
    second.subjects = registry_of(12);
    store.apply(first);
    store.apply(pool.patch(3, {7}));  // teaches nothing that it tells
    store.apply(second);
    const std::vector<Taught> both{{"p1", 11}, {"p2", 12}};
    EXPECT_EQ(taught(store.snapshot()), both);
    EXPECT_EQ(taught(reopened()), both);
    EXPECT_EQ(store.snapshot().patch("p1").subjects, first.subjects);
    EXPECT_EQ(taught(store.snapshot().without(std::vector<std::string>{"p1"})),
              (std::vector<Taught>{{"p2", 12}}));
    store.rollback("p1");
    EXPECT_EQ(taught(store.snapshot()), (std::vector<Taught>{{"p2", 12}}));
    EXPECT_EQ(taught(reopened()), (std::vector<Taught>{{"p2", 12}}));
    EXPECT_EQ(store.snapshot().patch("p1").subjects, first.subjects) << "it may come back";
    store.reapply("p1");
    const std::vector<Taught> again{{"p2", 12}, {"p1", 11}};
    EXPECT_EQ(taught(reopened()), again);
    store.keep("p1");
    store.compact();
    EXPECT_THAT(store.snapshot().patches(), IsEmpty()) << "they are folded into the base";
    EXPECT_EQ(taught(store.snapshot()), again) << "and are taught none the less";
    EXPECT_EQ(taught(reopened()), again);
    store.apply(pool.patch(4, {9}));  // begins another log
    EXPECT_EQ(taught(reopened()), again);
  }
}

TEST(StoreSubjects, AreToldOnByAPoolThatIsWrittenAnew) {
  const SmallPool pool;
  const TempDir dir;
  pool.write(io::posix(), dir.path());
  pool::keep_subjects(io::posix(), dir.path(), {});
  EXPECT_EQ(pool::read_current(io::posix(), dir.path()), std::nullopt) << "nothing to tell";
  const auto registry = std::make_shared<const SubjectRegistry>(registry_of(11));
  pool::keep_subjects(io::posix(), dir.path(), {{"p1", registry}});
  Store store = Store::open(dir.path());
  EXPECT_EQ(store.snapshot().version(), 0U);
  EXPECT_THAT(store.snapshot().patches(), IsEmpty());
  Patch next = pool.patch(2, {5});
  next.subjects = registry_of(12);
  store.apply(next);
  using Taught = std::pair<std::string, std::uint64_t>;
  EXPECT_EQ(taught(StoreReader::open(dir.path()).snapshot()),
            (std::vector<Taught>{{"p1", 11}, {"p2", 12}}));
  expect_error([&] { pool::keep_subjects(io::posix(), dir.path(), {{"p1", registry}}); },
               HasSubstr("expected a pool that was never edited"));
}

}  // namespace
}  // namespace memlayers
