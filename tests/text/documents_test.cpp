// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <iterator>
#include <string>
#include <utility>

#include "support/temp_dir.h"
#include "text/dataset.h"
#include "text/testing.h"

namespace memlayers::text {
namespace {

using memlayers::testing::TempDir;
using ::testing::AllOf;
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

TEST(Documents, ComeFromAStreamThatAShellNames) {
  std::array<int, 2> pipe_ends{};
  ASSERT_EQ(::pipe(pipe_ends.data()), 0);
  const std::string text = "{\"text\": \"piped\"}\n";
  ASSERT_EQ(::write(pipe_ends[1], text.data(), text.size()), std::ssize(text));
  ::close(pipe_ends[1]);
  const std::string path = "/dev/fd/" + std::to_string(pipe_ends[0]);
  EXPECT_THAT(read({path}, DataFormat::kJsonl), ElementsAre("piped"));
  EXPECT_THAT(error_of([&] { read({path, path}); }), HasSubstr("\"" + path + "\" once"));
  ::close(pipe_ends[0]);
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
              HasSubstr(":2: text: expected a string, got 3"));
  EXPECT_THAT(message("facts.jsonl", "[1]"), HasSubstr(":1: expected a JSON object, got [1]"));
  EXPECT_THAT(message("facts.jsonl", "{\"text\": \"x\""),
              HasSubstr(":1: expected JSON, got one that ends too early"));
  EXPECT_THAT(message("facts.jsonl", "{\"text\": \"\\ud800\"}"), HasSubstr(":1: expected JSON"));
  EXPECT_THAT(message("facts.jsonl", "{\"text\": \"x\", \"text\": \"y\"}"),
              HasSubstr(":1: expected each name once, got \"text\" twice"));
  EXPECT_THAT(message("facts.jsonl", std::string("{\"text\":\"x\"}\0{\"text\":\"y\"}\n", 26)),
              HasSubstr(":1: expected JSON, got a zero byte at column 13"));
  EXPECT_EQ(message("facts.jsonl", "{\"text\": \"x\"}\n{\"text\": \"\xC3\"}"),
            dir / "facts.jsonl:2: expected UTF-8, got byte 0xc3 at offset 24");
  EXPECT_EQ(message("a.txt", "abc\xFF"), dir / "a.txt: expected UTF-8, got byte 0xff at offset 3");
  EXPECT_EQ(message("empty.txt", ""), dir / "empty.txt: expected at least one document, got none");
  EXPECT_THAT(message("empty.jsonl", "\n \n"),
              HasSubstr("expected at least one document, got none"));
}

TEST(Documents, AreNotThePointersThatStandForThem) {
  const TempDir dir;
  write_file(dir / "a.txt",
             "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n");
  for (const DataFormat format : {DataFormat::kText, DataFormat::kLines, DataFormat::kJsonl}) {
    EXPECT_THAT(error_of([&] { read({dir / "a.txt"}, format); }),
                HasSubstr("a.txt: expected text, got a Git LFS pointer, "));
  }
}

TEST(Documents, OfAFileThatIsCutMeanwhileAreAnErrorThatNamesIt) {
  const TempDir dir;
  std::string lines;
  for (int i = 0; i < 5000; ++i) lines += "line " + std::to_string(i) + "\n";
  for (const DataFormat format : {DataFormat::kLines, DataFormat::kText, DataFormat::kJsonl}) {
    const bool is_json = format == DataFormat::kJsonl;
    write_file(dir / "f",
               is_json ? "{\"text\": \"a\"}\n" + std::string(20'000, '\n') + "{}" : lines);
    bool was_cut = false;
    const auto read_and_cut = [&] {
      read_documents(io::posix(), {dir / "f"}, format, [&](const Document& document) {
        EXPECT_EQ(document.answer.find('\0'), std::string::npos) << "what was cut, as zeros";
        if (!std::exchange(was_cut, true)) std::filesystem::resize_file(dir / "f", 0);
      });
    };
    if (format == DataFormat::kText) {  // one document: it is read whole before anybody sees it
      EXPECT_NO_THROW(read_and_cut());
      continue;
    }
    try {
      read_and_cut();
      FAIL() << "expected an Error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr(dir / "f"), HasSubstr("a file that was cut")));
    }
  }
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
