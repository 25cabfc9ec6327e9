// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "support/temp_dir.h"
#include "text/dataset.h"
#include "text/testing.h"

namespace memlayers::text {
namespace {

using memlayers::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> read(const std::vector<std::string>& paths,
                              DataFormat format = DataFormat::kAuto) {
  std::vector<std::string> documents;
  read_documents(io::posix(), paths, format, [&](const Document& document) {
    documents.push_back(document.prompt.empty() ? document.answer
                                                : document.prompt + " -> " + document.answer);
  });
  return documents;
}

// Standard input comes from a file while it lives.
class StandardInput {
 public:
  explicit StandardInput(const std::string& path) : saved_(dup(STDIN_FILENO)) {
    const int file = ::open(path.c_str(), O_RDONLY);
    dup2(file, STDIN_FILENO);
    ::close(file);
  }
  ~StandardInput() {
    dup2(saved_, STDIN_FILENO);
    ::close(saved_);
  }

 private:
  int saved_;
};

TEST(Documents, AreWholeFilesOrLinesOrObjects) {
  const TempDir dir;
  write_file(dir / "a.txt", "\xEF\xBB\xBFone\ntwo\n");
  write_file(dir / "b.txt", "one\r\n\n two\nlast");
  write_file(dir / "c.jsonl",
             "\xEF\xBB\xBF{\"text\": \"x\", \"prompt\": 7}\n\n"
             "{\"id\": 3, \"answer\": \"b\\u00e9\", \"prompt\": \"a\"}\r\n  \r\n"
             "{\"prompt\": \"\", \"answer\": \"plain\"}\n{\"text\": \"\"}");
  EXPECT_THAT(read({dir / "a.txt"}), ElementsAre("one\ntwo\n"));
  EXPECT_THAT(read({dir / "b.txt"}, DataFormat::kLines), ElementsAre("one", " two", "last"));
  EXPECT_THAT(read({dir / "c.jsonl"}), ElementsAre("x", "a -> bé", "plain"));
  EXPECT_THAT(read({dir / "c.jsonl", dir / "a.txt"}),
              ElementsAre("x", "a -> bé", "plain", "one\ntwo\n"));
}

TEST(Documents, OfAFolderComeByNameWithoutHiddenFilesAndFoldersBelow) {
  const TempDir dir;
  write_file(dir / "b.txt", "second");
  write_file(dir / "a.json", "{\"text\": \"first\"}\n");
  write_file(dir / ".hidden", "hidden");
  std::filesystem::create_directory(dir / "below");
  write_file(dir / "below/c.txt", "below");
  EXPECT_THAT(read({dir.path()}), ElementsAre("first", "second"));
}

TEST(Documents, ComeFromStandardInput) {
  const TempDir dir;
  write_file(dir / "in", "{\"text\": \"piped\"}\n");
  const StandardInput input(dir / "in");
  EXPECT_THAT(read({"-"}, DataFormat::kJsonl), ElementsAre("piped"));
  EXPECT_THAT(error_of([] { read({"-", "-"}); }), HasSubstr("\"-\" (standard input) once"));
}

TEST(Documents, NameFileAndLineOfWhatIsWrong) {
  const TempDir dir;
  const auto message = [&](const std::string& name, const std::string& content) {
    write_file(dir / name, content);
    return error_of([&] { read({dir / name}); });
  };
  EXPECT_EQ(
      message("facts.jsonl", "{\"text\": \"x\"}\n{\"a\": 1, \"b\": 2}\n"),
      dir /
          "facts.jsonl:2: expected a field \"text\", or \"prompt\" and \"answer\", got fields "
          "\"a\", \"b\"");
  EXPECT_THAT(message("facts.jsonl", "{}"),
              HasSubstr("facts.jsonl:1: expected a field \"text\", or "
                        "\"prompt\" and \"answer\", got no field"));
  EXPECT_THAT(message("facts.jsonl", "\n{\"text\": 3}"),
              HasSubstr(":2: text: expected a string, got number"));
  EXPECT_THAT(message("facts.jsonl", "[1]"), HasSubstr(":1: expected a JSON object, got array"));
  EXPECT_THAT(message("facts.jsonl", "{\"text\": \"x\""),
              HasSubstr(":1: expected a JSON object, got a mistake at byte"));
  EXPECT_THAT(message("facts.jsonl", "{\"text\": \"\\ud800\"}"),
              HasSubstr(":1: expected a JSON object"));
  EXPECT_EQ(message("facts.jsonl", "{\"text\": \"x\"}\n{\"text\": \"\xC3\"}"),
            dir / "facts.jsonl:2: expected UTF-8, got byte 0xc3 at offset 24");
  EXPECT_EQ(message("a.txt", "abc\xFF"), dir / "a.txt: expected UTF-8, got byte 0xff at offset 3");
  EXPECT_EQ(message("empty.txt", ""), dir / "empty.txt: expected at least one document, got none");
  EXPECT_THAT(message("empty.jsonl", "\n \n"),
              HasSubstr("expected at least one document, got none"));
}

TEST(Documents, OfNoFileAreAnError) {
  const TempDir dir;
  EXPECT_EQ(error_of([&] { read({dir / "none.txt"}); }),
            dir / "none.txt: expected a file or folder of data, got nothing");
  EXPECT_THAT(error_of([&] { read({dir.path()}); }),
              HasSubstr("expected at least one file of data, got none"));
  EXPECT_THAT(error_of([] { read({}); }), HasSubstr("data: expected at least one file"));
}

}  // namespace
}  // namespace memlayers::text
