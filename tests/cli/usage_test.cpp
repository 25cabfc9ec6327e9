// SPDX-License-Identifier: Apache-2.0
#include <sstream>

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

// The verbs that a help names, in its last section.
std::vector<std::string> verbs_of(const std::string& help) {
  std::vector<std::string> verbs;
  const std::size_t begin = help.find("Subcommands:\n");
  if (begin == std::string::npos) return verbs;
  std::istringstream lines(help.substr(begin));
  std::string line;
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    if (line.size() > 2 && line[2] != ' ') verbs.push_back(line.substr(2, line.find(' ', 2) - 2));
  }
  return verbs;
}

void expect_readable_help(std::vector<std::string> verb) {
  verb.emplace_back("--help");
  const Finished help = run_command(verb);
  EXPECT_EQ(help.code, 0);
  std::istringstream lines(help.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100U) << line;
  verb.pop_back();
  const std::string usage = "\n\nUsage: memlayers";
  EXPECT_LT(help.out.find(usage), 100U) << "below one line that says what it does: " << help.out;
  if (verb.size() < 2) {
    EXPECT_LT(help.out.find("Example"), help.out.find("Options:")) << help.out;
  }
  for (const std::string& inner : verbs_of(help.out)) {
    verb.push_back(inner);
    expect_readable_help(verb);
    verb.pop_back();
  }
}

TEST(Usage, EveryHelpFitsOneHundredColumnsAndBeginsWithExamples) {
  EXPECT_GE(verbs_of(run_command({"--help"}).out).size(), 11U);
  EXPECT_GE(verbs_of(run_command({"patch", "--help"}).out).size(), 10U);
  expect_readable_help({});
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
