// SPDX-License-Identifier: Apache-2.0
// A verb that waits at a prompt, and gets Ctrl-C.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

#include "cli/command_testing.h"

namespace memlayers::testing {

// Runs `memlayers <arguments>`, gives it `line`, reads one line of its answer, and then sends
// SIGINT until it ends: one that comes too soon ends the answer only.
inline Finished run_interrupted(std::vector<std::string> arguments, const std::string& line) {
  std::array<int, 2> input{}, output{};
  EXPECT_EQ(pipe(input.data()), 0);
  EXPECT_EQ(pipe(output.data()), 0);
  arguments.insert(arguments.begin(),
                   std::filesystem::read_symlink("/proc/self/exe").parent_path() / "memlayers");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(input[0], 0);
    dup2(output[1], 1);
    for (const int end : {input[0], input[1], output[0], output[1]}) close(end);
    execv(argv[0], argv.data());
    _exit(127);
  }
  close(input[0]);
  close(output[1]);
  EXPECT_EQ(write(input[1], line.data(), line.size()), static_cast<ssize_t>(line.size()));
  std::string answer;
  for (char c = 0; c != '\n' && read(output[0], &c, 1) == 1;) answer += c;
  int status = 0;
  while (waitpid(child, &status, WNOHANG) == 0) {
    kill(child, SIGINT);
    usleep(50'000);
  }
  close(input[1]);
  close(output[0]);
  return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
          .out = answer,
          .err = ""};
}

}  // namespace memlayers::testing
