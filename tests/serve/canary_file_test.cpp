// SPDX-License-Identifier: Apache-2.0
#include "serve/canary_file.h"

#include <gmock/gmock.h>

#include "support/failing_file_system.h"
#include "support/temp_dir.h"
#include "support/testing.h"

namespace memlayers {
namespace {

using serve::CanariesById;
using testing::FailingFileSystem;
using testing::Failure;
using ::testing::HasSubstr;
using testing::TempDir;

CanariesById some(int count) {
  CanariesById all;
  for (int i = 0; i < count; ++i) {
    const std::string id = "c" + std::to_string(i);
    all[id] = {
        .id = id, .prompt = "what is \"\n\xC3\xA4", .answer = "42", .rolls_back = i % 2 == 0};
  }
  return all;
}

// What a file keeps of them.
std::vector<std::tuple<std::string, std::string, std::string, bool>> kept(const CanariesById& all) {
  std::vector<std::tuple<std::string, std::string, std::string, bool>> list;
  for (const auto& [id, canary] : all) {
    list.emplace_back(canary.id, canary.prompt, canary.answer, canary.rolls_back);
  }
  return list;
}

class CanaryFile : public ::testing::Test {
 protected:
  CanariesById read() const { return serve::read_canaries(io::posix(), path_); }
  TempDir dir_;
  std::string path_ = dir_ / "canaries.json";
};

TEST_F(CanaryFile, GivesBackWhatWasWritten) {
  EXPECT_TRUE(read().empty()) << "no file";
  for (const int count : {3, 0, 1}) {
    serve::write_canaries(io::posix(), path_, some(count));
    EXPECT_EQ(kept(read()), kept(some(count)));
  }
}

TEST_F(CanaryFile, IsAsBeforeOrAfterWhereverTheMachineStops) {
  for (const Failure failure :
       {Failure::kIoError, Failure::kDiskFull, Failure::kTorn, Failure::kCrash}) {
    for (int call = 1;; ++call) {
      serve::write_canaries(io::posix(), path_, some(2));
      FailingFileSystem files(call, failure);
      bool has_failed = false;
      try {
        serve::write_canaries(files, path_, some(3));
      } catch (const Error&) {
        has_failed = true;
      }
      const auto now = kept(read());
      if (!has_failed) {
        EXPECT_EQ(now, kept(some(3)));
        break;
      }
      EXPECT_TRUE(now == kept(some(2)) || now == kept(some(3))) << "call " << call;
    }
  }
}

TEST_F(CanaryFile, OfAnotherKindIsRefusedWithItsName) {
  const auto wrong = [&](const std::string& text) {
    testing::write_file(path_, text);
    return testing::error_of([&] { read(); });
  };
  EXPECT_THAT(wrong("{"), HasSubstr("canaries.json"));
  EXPECT_THAT(wrong("[]"), HasSubstr("canaries.json"));
  EXPECT_THAT(wrong(R"({"format": "other", "version": 1, "canaries": []})"),
              HasSubstr("format: expected \"memlayers-canaries\""));
  EXPECT_THAT(wrong(R"({"format": "memlayers-canaries", "version": 2, "canaries": []})"),
              HasSubstr("version"));
  const std::string head = R"({"format": "memlayers-canaries", "version": 1)";
  EXPECT_THAT(wrong(head + "}"), HasSubstr("canaries"));
  EXPECT_THAT(wrong(head + R"(, "canaries": [], "more": 1})"), HasSubstr("more"));
  const std::string one = R"({"id": "a", "prompt": "b", "answer": "c", "rolls_back": true})";
  EXPECT_THAT(wrong(head + R"(, "canaries": [)" + one + "," + one + "]}"),
              HasSubstr("canaries[1].id: expected each id once"));
  EXPECT_THAT(wrong(head + R"(, "canaries": [{"id": "a", "prompt": 1}]})"),
              HasSubstr("canaries[0].prompt"));
}

}  // namespace
}  // namespace memlayers
