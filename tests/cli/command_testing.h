// SPDX-License-Identifier: Apache-2.0
// Runs the command that was built beside the test, and makes model folders for it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "io/file_system.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/tiny_model.h"

namespace memlayers::testing {

struct Finished {
  int code;  // below 0: the signal that ended it
  std::string out, err;
};

struct Streams {
  std::string input = "/dev/null";
  std::string output = {};  // empty: collected into Finished::out
};

// Runs `memlayers <arguments>` to its end.
inline Finished run_command(std::vector<std::string> arguments, const Streams& streams = {}) {
  const TempDir dir;
  const std::string out = streams.output.empty() ? dir / "out" : streams.output;
  const std::string err = dir / "err";
  arguments.insert(arguments.begin(),
                   std::filesystem::read_symlink("/proc/self/exe").parent_path() / "memlayers");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(open(streams.input.c_str(), O_RDONLY), 0);
    dup2(open(out.c_str(), O_WRONLY | O_CREAT, 0600), 1);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT, 0600), 2);
    execv(argv[0], argv.data());
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return {.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status),
          .out = streams.output.empty() ? read_file(out) : "",
          .err = read_file(err)};
}

// Runs it with an output whose reader is gone before anything is written.
inline Finished run_unheard(const std::vector<std::string>& arguments) {
  const TempDir dir;
  const std::string pipe = dir / "pipe";
  EXPECT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const pid_t reader = fork();
  if (reader == 0) {
    close(open(pipe.c_str(), O_RDONLY));  // as soon as the command opens it too
    _exit(0);
  }
  const Finished done = run_command(arguments, {.output = pipe});
  int status = 0;
  waitpid(reader, &status, 0);
  return done;
}

// One line on standard error that holds `text`, and nothing on standard output.
inline void expect_error(const Finished& done, int code, const std::string& text) {
  EXPECT_EQ(done.code, code) << done.err;
  EXPECT_EQ(done.out, "");
  EXPECT_EQ(done.err.rfind("memlayers: error: ", 0), 0U) << done.err;
  EXPECT_TRUE(says(done.err, {text}));
  EXPECT_EQ(done.err.find('\n'), done.err.size() - 1) << "one line: " << done.err;
}

// A model folder at `path`: that of tiny_generator().
inline void write_model(const std::string& path, const ModelConfig& config = tiny_model_config()) {
  io::make_folders(io::posix(), path);
  Generator generator = tiny_generator(config);
  save_model(generator.model(), path);
  write_file(io::join(path, tiny_tokenizer()->file_name()), tiny_tokenizer()->file_bytes());
}

}  // namespace memlayers::testing
