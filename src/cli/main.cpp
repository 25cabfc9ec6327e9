// SPDX-License-Identifier: Apache-2.0
// The command: a table of verbs. Exceptions become one line and an exit code: 2 wrong usage, 1
// anything else.
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "cli/command.h"
#include "io/nearest.h"
#include "memlayers/error.h"
#include "memlayers/parallel.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace memlayers::cli {

constexpr int kFailed = 1, kUsage = 2;

void set_threads(int threads) {
  const int cores = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  at::set_num_threads(threads > 0 ? threads : cores);
}

namespace {

// glibc gives large blocks back to the system as they are freed, and each page of the next one is
// a fault and cleared anew: a tenth of a decoder's training step (docs/performance.md), whose
// tensors are the same in every step. So what was freed is kept, but for the largest ones.
void keep_freed_memory() {
#ifdef __GLIBC__
  constexpr int kLargest = 256 << 20;
  mallopt(M_MMAP_THRESHOLD, kLargest);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

int fail(const std::string& message, int code) {
  // One line, whatever a library put into its message.
  std::string line = message.substr(0, message.find('\n'));
  std::cerr << "memlayers: error: " << line << '\n';
  return code;
}

std::string usage_text(const CLI::ParseError& error, const CLI::App& app,
                       const std::vector<Command>& commands, int argc, char** argv) {
  if (app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-') {
    std::vector<std::string> names;
    for (const Command& command : commands) names.emplace_back(command.name);
    return "expected a verb, got \"" + std::string(argv[1]) + "\"; did you mean " +
           io::nearest(argv[1], names) + "? (see memlayers --help)";
  }
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const std::string verb = chosen.empty() ? "" : " " + chosen.front()->get_name();
  return std::string(error.what()) + " (see memlayers" + verb + " --help)";
}

int run(int argc, char** argv) {
  CLI::App app{"memlayers: Transformers with very large, sparse, editable memory"};
  app.set_version_flag("--version", MEMLAYERS_VERSION);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  const std::vector<Command> commands{train_command(),   generate_command(), eval_command(),
                                      inspect_command(), quantize_command(), patch_command(),
                                      learn_command(),   explain_command(),  grow_command(),
                                      bench_command(),   plan_command()};
  std::function<int()> chosen;
  for (const Command& command : commands) {
    CLI::App* verb = app.add_subcommand(command.name, command.summary);
    verb->footer("Example:\n  " + std::string(command.example));
    auto action = command.add(*verb);
    verb->callback([&chosen, action] { chosen = action; });
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::ParseError& error) {
    throw UsageError(usage_text(error, app, commands, argc, argv));
  }
  const int code = chosen();
  errno = 0;
  std::cout.flush();
  if (!std::cout) {  // what was asked for was not delivered
    throw Error(std::string("standard output: cannot write") +
                (errno != 0 ? std::string(": ") + std::strerror(errno) : ""));
  }
  return code;
}

// Processes of one run mostly fail together and for the same reason: one tells it, and ends all
// before the others' time is over.
void let_the_first_speak(bool is_first) {
  if (is_first) return;
  std::signal(SIGTERM, SIG_DFL);  // which is how it ends them: there is nothing left to save
  std::this_thread::sleep_for(std::chrono::seconds(3));
}

// "rank 2 on node7: " where the first process does not know of the error, else nothing.
std::string own_name() {
  const auto all = world();
  const int rank = all->rank();
  return rank == 0 ? "" : "rank " + std::to_string(rank) + " on " + all->host(rank) + ": ";
}

// Our words for torch's message that it got no memory; nothing for another one.
std::optional<std::string> out_of_memory(const std::string& message) {
  constexpr std::string_view kBefore = "you tried to allocate ";
  const auto at = message.find(kBefore);
  if (at == std::string::npos) return {};
  const auto first = at + kBefore.size();
  return "out of memory: no room for " + message.substr(first, message.find(' ', first) - first) +
         " bytes more";
}

int guarded_run(int argc, char** argv) {
  std::string message, whose;
  int code = kFailed;
  bool is_first = true;
  try {
    try {
      const int done = run(argc, argv);
      leave_world();
      return done;
    } catch (const PeerLost&) {
      throw;
    } catch (...) {
      is_first = world()->rank() == 0;
      whose = own_name();
      throw;
    }
  } catch (const UsageError& error) {
    message = error.what();
    code = kUsage;
  } catch (const PeerLost& error) {
    message = error.what();
    is_first = error.is_first();
  } catch (const c10::Error& error) {
    const std::string theirs = error.what_without_backtrace();
    const std::optional<std::string> ours = out_of_memory(theirs);
    message = ours.value_or(theirs);
    is_first = is_first || ours;  // of this process alone
  } catch (const std::bad_alloc&) {
    message = "out of memory";
    is_first = true;  // of this process alone
  } catch (const std::exception& error) {
    message = error.what();
  }
  let_the_first_speak(is_first);
  return fail(whose + message, code);
}

}  // namespace
}  // namespace memlayers::cli

int main(int argc, char** argv) {
  using namespace memlayers::cli;
  keep_freed_memory();
  // A reader that went away (| head) is no error of ours; writing then fails quietly.
  std::signal(SIGPIPE, [](int) { std::_Exit(0); });
  const int code = guarded_run(argc, argv);
  if (code == kFailed || code == kUsage) memlayers::abort_world(code);  // the others wait for us
  return code;
}
