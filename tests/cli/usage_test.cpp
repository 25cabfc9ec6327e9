// SPDX-License-Identifier: Apache-2.0
#include "cli/command_testing.h"

namespace memlayers {
namespace {

using testing::expect_error;
using testing::Finished;
using testing::run_command;
using testing::says;

TEST(Usage, AVerbThatIsNotOneIsAnsweredWithTheNearest) {
  expect_error(run_command({"generat"}), 2, "did you mean generate?");
  expect_error(run_command({}), 2, "memlayers --help");
}

TEST(Usage, AnOptionThatIsNotOneIsNamed) {
  expect_error(run_command({"inspect", "--digset", "x"}), 2, "--digset");
  expect_error(run_command({"eval", "x", "--limit", "many", "--facts", "f"}), 2, "--limit");
  expect_error(run_command({"generate"}), 2, "memlayers generate --help");
}

TEST(Usage, HelpAndVersionGoToStandardOutput) {
  const Finished help = run_command({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.err, "");
  EXPECT_TRUE(says(help.out, {"train", "generate", "eval", "inspect"}));
  const Finished verb = run_command({"eval", "--help"});
  EXPECT_EQ(verb.code, 0);
  EXPECT_TRUE(says(verb.out, {"--facts", "Example:"}));
  const Finished version = run_command({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out.find('\n'), version.out.size() - 1) << version.out;
}

}  // namespace
}  // namespace memlayers
