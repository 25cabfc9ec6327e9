// SPDX-License-Identifier: Apache-2.0
#include "io/folder.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>

#include "support/failing_files.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers::io {
namespace {

using memlayers::testing::error_of;
using memlayers::testing::FailingFiles;
using memlayers::testing::read_file;
using memlayers::testing::says;
using memlayers::testing::TempDir;
using memlayers::testing::write_file;

void write_run(FileSystem& fs, const std::string& path) {
  FolderWriter writer(fs, path);
  writer.write_text("config.json", "{}");
  writer.write_text("pool/rows", "0123456789");
  writer.write_text("pool/deep/er", std::string(1000, 'x'));
  writer.commit();
}

TEST(FolderWriter, LeavesTheFilesAndAManifestThatVerifies) {
  const TempDir dir;
  write_run(posix(), dir / "run");
  EXPECT_EQ(posix().list(dir.path()), std::vector<std::string>{"run"});
  EXPECT_EQ(read_file(dir / "run/pool/rows"), "0123456789");
  const auto manifest = read_manifest(posix(), dir / "run");
  EXPECT_EQ(manifest.size(), 3U);
  EXPECT_EQ(manifest.at("pool/rows").size, 10U);
  EXPECT_TRUE(is_complete(posix(), dir / "run"));
  EXPECT_NO_THROW(verify_folder(posix(), dir / "run"));
}

TEST(FolderWriter, WithoutCommitNothingIsLeft) {
  const TempDir dir;
  {
    FolderWriter writer(posix(), dir / "run");
    writer.write_text("pool/rows", "0123456789");
  }
  EXPECT_TRUE(posix().list(dir.path()).empty());
}

TEST(FolderWriter, RefusesAPlaceThatIsTakenAndKeepsIt) {
  const TempDir dir;
  write_run(posix(), dir / "run");
  EXPECT_TRUE(says(error_of([&] { write_run(posix(), dir / "run"); }), {dir / "run", "found one"}));
  EXPECT_NO_THROW(verify_folder(posix(), dir / "run"));
}

TEST(FolderWriter, TakesThePlaceOfAFolderInOneStep) {
  const TempDir dir;
  write_run(posix(), dir / "run");
  write_file(dir / "run/old", "x");
  for (const bool is_committed : {false, true}) {
    make_folders(posix(), dir / "run.next-1-01234567/left");  // of any process
    FolderWriter writer(posix(), dir / "run", FolderWriter::Place::kOfAFolder);
    writer.write_text("config.json", "{1}");
    EXPECT_EQ(read_file(dir / "run/config.json"), "{}");
    if (is_committed) writer.commit();
  }
  EXPECT_EQ(posix().list(dir.path()), std::vector<std::string>{"run"});
  EXPECT_EQ(posix().list(dir / "run"), (std::vector<std::string>{"MANIFEST.json", "config.json"}));
  EXPECT_EQ(read_file(dir / "run/config.json"), "{1}");
  EXPECT_NO_THROW(verify_folder(posix(), dir / "run"));
}

TEST(FolderWriter, LeavesAPoolToItsLogOnceItHasOne) {
  const TempDir dir;
  FolderWriter writer(posix(), dir / "run");
  writer.write_text("config.json", "{}");
  writer.write_text("pool/chunk", "0123");
  writer.write_text("pool/CURRENT", "log-1");
  writer.commit();
  EXPECT_EQ(read_manifest(posix(), dir / "run").size(), 1U);
  EXPECT_EQ(files_in(posix(), dir / "run"),
            (std::vector<std::string>{"config.json", "pool/CURRENT", "pool/chunk"}));
}

TEST(FolderWriter, ReplacesWhatAnEarlierProcessLeftHalfWritten) {
  const TempDir dir;
  const std::string left = (dir / "run") + ".tmp-" + std::to_string(::getpid()) + "-0123abcd";
  std::filesystem::create_directories(left + "/pool");
  write_file(left + "/pool/old", "half");
  write_run(posix(), dir / "run");
  EXPECT_FALSE(posix().exists(dir / "run/pool/old"));
  EXPECT_EQ(posix().list(dir.path()).size(), 1U);
}

TEST(FolderWriter, ASlashAtTheEndAndMissingParentsAreFine) {
  const TempDir dir;
  write_run(posix(), dir / "a/b/run/");
  EXPECT_EQ(posix().list(dir / "a/b"), std::vector<std::string>{"run"});
}

// Every call that changes the disk fails once as the first of many, at each place.
TEST(FolderWriter, AFullDiskAtAnyMomentLeavesAWholeFolderOrNone) {
  FailingFiles counter(1 << 20);
  const TempDir whole;
  write_run(counter, whole / "run");
  ASSERT_GT(counter.calls(), 10);
  int whole_folders = 0;
  for (int n = 1; n <= counter.calls(); ++n) {
    const TempDir dir;
    FailingFiles full(n);
    EXPECT_THROW(write_run(full, dir / "run"), Error) << "call " << n;
    for (const std::string& name : posix().list(dir.path())) {
      EXPECT_EQ(name, "run") << "call " << n << " leaves a temporary";
      EXPECT_NO_THROW(verify_folder(posix(), dir / name)) << "call " << n;
      ++whole_folders;
    }
  }
  EXPECT_EQ(whole_folders, 1) << "only the last call, the parent's sync, comes after the rename";
}

TEST(WriteAtomic, AFullDiskAtAnyMomentLeavesTheOldTextOrTheNew) {
  FailingFiles counter(1 << 20);
  const TempDir whole;
  write_atomic(counter, whole / "f", "new text");
  ASSERT_GE(counter.calls(), 4);
  for (int n = 1; n <= counter.calls(); ++n) {
    const TempDir dir;
    write_file(dir / "f", "old");
    FailingFiles full(n);
    EXPECT_THROW(write_atomic(full, dir / "f", "new text"), Error) << "call " << n;
    EXPECT_EQ(posix().list(dir.path()), std::vector<std::string>{"f"}) << "call " << n;
    EXPECT_EQ(read_file(dir / "f"), n == counter.calls() ? "new text" : "old") << "call " << n;
  }
}

TEST(WriteAtomic, ReplacesTheFileAndALeftTemporary) {
  const TempDir dir;
  write_file(dir / "f", "old");
  write_file((dir / "f.tmp-") + std::to_string(::getpid()) + "-0123abcd", "half");
  write_atomic(posix(), dir / "f", "new");
  EXPECT_EQ(read_file(dir / "f"), "new");
  EXPECT_EQ(posix().list(dir.path()), std::vector<std::string>{"f"});
}

TEST(WriteAtomic, LeavesWhatOthersCalledLikeATemporary) {
  const TempDir dir;
  const std::string own = std::to_string(::getpid());
  const std::vector<std::string> others = {"f.tmp",
                                           "f.tmp-",
                                           "f.tmp-" + own,
                                           "f.tmp-x-0123abcd",
                                           "f.tmp-" + own + "-0123abc",
                                           "f.tmp-1-0123abcd",
                                           "f.tmp-" + own + "-0123ABCD",
                                           "g.tmp-" + own + "-0123abcd"};
  for (const std::string& name : others) write_file(dir / name, "theirs");
  write_atomic(posix(), dir / "f", "new");
  for (const std::string& name : others) EXPECT_EQ(read_file(dir / name), "theirs") << name;
  EXPECT_EQ(posix().list(dir.path()).size(), others.size() + 1);
}

TEST(WriteAtomic, LeavesTheTemporaryThatAnotherThreadIsWriting) {
  const TempDir dir;
  const TemporaryName other(posix(), dir / "f");
  write_file(other.path(), "half");
  write_atomic(posix(), dir / "f", "new");
  EXPECT_EQ(read_file(other.path()), "half");
  other.remove();
  EXPECT_EQ(posix().list(dir.path()), std::vector<std::string>{"f"});
}

TEST(FolderWriter, KeepsWhatCameToItsPlaceMeanwhile) {
  const TempDir dir;
  for (const bool is_folder : {false, true}) {
    const std::string path = dir / (is_folder ? "folder" : "file");
    {
      FolderWriter writer(posix(), path);
      writer.write_text("config.json", "{}");
      if (is_folder) {
        posix().make_folder(path);
      } else {
        write_file(path, "theirs");
      }
      EXPECT_TRUE(says(error_of([&] { writer.commit(); }), {path, "exists"}));
    }
    EXPECT_EQ(is_folder ? posix().list(path).size() : read_file(path).size(), is_folder ? 0 : 6);
  }
  EXPECT_EQ(posix().list(dir.path()), (std::vector<std::string>{"file", "folder"}));
}

class Verify : public ::testing::Test {
 protected:
  void SetUp() override { write_run(posix(), run_); }
  std::string error() {
    return error_of([&] { verify_folder(posix(), run_); });
  }
  TempDir dir_;
  std::string run_ = dir_ / "run";
};

TEST_F(Verify, NamesAMissingACutAndAnAlteredFile) {
  write_file(run_ + "/pool/rows", "0123456780");
  EXPECT_TRUE(is_complete(posix(), run_)) << "it looks at sizes only";
  EXPECT_TRUE(says(error(), {"pool/rows", "checksum"}));
  write_file(run_ + "/pool/rows", "012345678");
  EXPECT_FALSE(is_complete(posix(), run_));
  EXPECT_TRUE(says(error(), {"pool/rows", "expected 10 bytes", "got 9"}));
  posix().unlink(run_ + "/pool/rows");
  EXPECT_FALSE(is_complete(posix(), run_));
  EXPECT_TRUE(says(error(), {"pool/rows"}));
}

TEST_F(Verify, EveryFlippedBitOfAFileIsSeen) {
  for (std::size_t bit = 0; bit < 80; ++bit) {
    std::string altered = "0123456789";
    altered[bit / 8] = static_cast<char>(altered[bit / 8] ^ (1 << (bit % 8)));
    write_file(run_ + "/pool/rows", altered);
    EXPECT_THROW(verify_folder(posix(), run_), Error) << "bit " << bit;
  }
}

TEST_F(Verify, ACutManifestIsAnErrorAtEveryLength) {
  const std::string manifest = read_file(run_ + "/MANIFEST.json");
  for (std::size_t size = 0; size < manifest.size(); ++size) {
    write_file(run_ + "/MANIFEST.json", manifest.substr(0, size));
    EXPECT_THROW(verify_folder(posix(), run_), Error) << size << " bytes";
    EXPECT_FALSE(is_complete(posix(), run_)) << size << " bytes";
  }
  posix().unlink(run_ + "/MANIFEST.json");
  EXPECT_FALSE(is_complete(posix(), run_));
  EXPECT_TRUE(says(error(), {"MANIFEST.json"}));
}

TEST_F(Verify, AManifestThatLiesIsAnError) {
  const std::string head = R"({"format":"memlayers-manifest","version":1,"files":)";
  for (const std::string& text :
       {std::string("null"), std::string("[]"), std::string("{}"),
        std::string(R"({"format":"other","version":1,"files":{}})"),
        std::string(R"({"format":"memlayers-manifest","version":2,"files":{}})"), head + "null}",
        head + "[]}", head + R"("a"})", head + R"({"a":1}})",
        head + R"({"a":{"size":-1,"xxh3":""}}})", head + R"({"a":{"size":1.5,"xxh3":""}}})",
        head + R"({"a":{"size":1,"xxh3":2}}})", head + R"({"../a":{"size":1,"xxh3":"0"}}})",
        head + R"({"/a":{"size":1,"xxh3":"0"}}})",
        head + R"({"b/../../a":{"size":1,"xxh3":"0"}}})"}) {
    write_file(run_ + "/MANIFEST.json", text);
    EXPECT_TRUE(says(error(), {"MANIFEST.json"})) << text;
    EXPECT_FALSE(is_complete(posix(), run_)) << text;
  }
}

TEST(Xxh3, IsTheStandardOne) {  // the vectors of the xxHash project's own documentation
  EXPECT_EQ(xxh3_hex({}), "2d06800538d394c2");
  const std::string letter = "a";
  EXPECT_EQ(xxh3_hex(std::as_bytes(std::span(letter))), "e6c632b61e964e1f");
}

}  // namespace
}  // namespace memlayers::io
