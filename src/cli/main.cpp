// SPDX-License-Identifier: Apache-2.0
// The command: a table of verbs. Exceptions become one line and an exit code: 2 wrong usage, 1
// anything else.
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <iostream>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cli/command.h"
#include "cli/help.h"
#include "cli/output.h"
#include "cli/terminal.h"
#include "dist/launcher.h"
#include "io/descriptor.h"
#include "io/nearest.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "memlayers/parallel.h"
#include "nn/free_memory.h"
#include "train/processes.h"

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

// A library's message: its first line; the others are of no use to a user.
std::string first_line(const std::string& message) { return message.substr(0, message.find('\n')); }

std::string usage_text(const CLI::ParseError& error, const CLI::App& app,
                       const std::vector<Command>& commands, int argc, char** argv) {
  if (app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-') {
    std::vector<std::string> names;
    for (const Command& command : commands) names.emplace_back(command.name);
    return "expected a verb, got " + io::quote(argv[1]) + "; did you mean " +
           io::nearest(argv[1], names) + "? (see memlayers --help)";
  }
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const std::string verb = chosen.empty() ? "" : " " + chosen.front()->get_name();
  return std::string(error.what()) + " (see memlayers" + verb + " --help)";
}

int run(int argc, char** argv) {
  CLI::App app{"Transformers with very large, sparse, editable memory", "memlayers"};
  app.formatter(help_formatter());
  app.footer(
      "Example:\n"
      "  memlayers train CONFIG.toml\n"
      "  memlayers generate runs/demo \"What is a dingo?\"\n"
      "  memlayers train --help");
  app.set_version_flag("--version", MEMLAYERS_VERSION);
  app.require_subcommand(1);
  app.failure_message(CLI::FailureMessage::simple);
  const std::vector<Command> commands{
      train_command(),  generate_command(), chat_command(),     eval_command(),  inspect_command(),
      import_command(), export_command(),   quantize_command(), patch_command(), retrofit_command(),
      learn_command(),  explain_command(),  grow_command(),     serve_command(), bench_command(),
      plan_command(),   tokenize_command()};
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
  return chosen();
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

// Whose error it is, as far as others may have the same.
struct Speaker {
  bool is_first = true;   // which is the one to speak
  bool is_early = false;  // no process waits for another yet
  std::string name;       // "rank 2 on node7: " where the first does not know of the error, else ""
};

Speaker this_speaker() {
  if (is_launched() && !dist::world_has_started()) {
    const int rank = dist::launched_rank();
    return {rank == 0, true, rank == 0 ? "" : "rank " + std::to_string(rank) + ": "};
  }
  return {world()->rank() == 0, false, own_name()};
}

// All processes of the run come here, and leave as they came.
int end_together(const train::CommonError& error) {
  if (world()->rank() == 0) print_error(error.what());
  std::cout.flush();
  leave_world();
  return is_launched() ? kUsage : kFailed;
}

int guarded_run(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "memlayers";
  std::string message;
  int code = kFailed;
  Speaker speaker;
  try {
    try {
      const int done = run(argc, argv);
      leave_world();
      return done;
    } catch (const train::CommonError& error) {
      return end_together(error);
    } catch (const PeerLost&) {
      throw;
    } catch (...) {
      speaker = this_speaker();
      throw;
    }
  } catch (const UsageError& error) {
    message = error.what();
    code = kUsage;
  } catch (const PeerLost& error) {
    message = error.what();
    speaker.is_first = error.is_first();
  } catch (const c10::Error& error) {
    const std::optional<std::string> ours = nn::out_of_memory(error);
    message = ours ? verb + ": " + *ours : first_line(error.what_without_backtrace());
    speaker.is_first = speaker.is_first || ours;  // of this process alone
  } catch (const std::bad_alloc&) {
    message = verb + ": out of memory";
    speaker.is_first = true;  // of this process alone
  } catch (const Error& error) {
    message = error.what();
  } catch (const std::exception& error) {
    message = first_line(error.what());
  }
  let_the_first_speak(speaker.is_first);
  print_error(speaker.name + message);
  if (speaker.is_early) return kUsage;  // the others find the same
  std::cout.flush();
  abort_world(code);  // the others wait for us
  return code;
}

int run_and_deliver(int argc, char** argv) {
  StandardOutput output;
  const int code = guarded_run(argc, argv);
  const std::string lost = output.finish();
  if (code != 0 || lost.empty()) return code;
  print_error("standard output: cannot write: " + lost);  // what was asked for was not delivered
  return kFailed;
}

}  // namespace
}  // namespace memlayers::cli

int main(int argc, char** argv) {
  using namespace memlayers::cli;
  memlayers::io::open_standard_streams();  // before anything else is opened
  memlayers::io::outlive_file_size_limit();
  keep_freed_memory();
  return run_and_deliver(argc, argv);
}
