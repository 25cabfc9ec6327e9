// SPDX-License-Identifier: Apache-2.0
#include "bench/parallel.h"

#include <sys/wait.h>
#include <torch/types.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "bench/least_exchange.h"
#include "bench/subjects.h"
#include "bench/trainee.h"
#include "dist/collectives.h"
#include "memlayers/error.h"

namespace memlayers::bench {
namespace {

// One step, over all processes.
struct StepTime {
  double step_s, exchange_s, wait_s;
};

double largest(Communicator& world, double number) {
  double most = number;
  for (const Message& message : dist::all_gather(world, std::as_bytes(std::span(&number, 1)))) {
    double other;
    std::memcpy(&other, message.data.get(), sizeof other);
    most = std::max(most, other);
  }
  return most;
}

// Standard output and error of a child.
struct Pipe {
  int ends[2] = {-1, -1};
  Pipe() {
    if (pipe(ends) != 0) throw Error(std::string("pipe: ") + std::strerror(errno));
  }
  ~Pipe() {
    for (int end : ends) {
      if (end >= 0) close(end);
    }
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_end(int i) {
    close(ends[i]);
    ends[i] = -1;
  }
  std::string read_all() {
    std::string text;
    char buffer[4096];
    for (;;) {
      const ssize_t count = read(ends[0], buffer, sizeof buffer);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return text;
      text.append(buffer, static_cast<std::size_t>(count));
    }
  }
};

}  // namespace

Figures bench_together(const Case& c) {
  const ModelConfig& model = c.config.model;
  check_pool_memory(c);
  check_decoder_memory(c, 1);
  const train::Processes processes(world(), c.config.parallel);
  const train::LongWait long_wait(processes);  // tables are filled
  Communicator& all = processes.world();
  Trainee trainee(c, model, processes);
  IndexDraw words(model.vocab_size, c.distribution, kSeed);  // the same in all
  const auto R = static_cast<double>(processes.count());

  std::vector<StepTime> times;
  Times steps;
  double bytes = 0, tokens = 0;
  for (int i = -1; i < c.repeat; ++i) {
    const text::Batch batch = draw_batch(words, c.tokens, model.context);
    tokens = static_cast<double>(batch.tokens);
    dist::barrier(all);
    const Traffic before = all.traffic();
    const double own = trainee.seconds_of_step(batch);
    const Traffic after = all.traffic();
    double sums[] = {after.exchange_s - before.exchange_s, after.waited_s - before.waited_s,
                     static_cast<double>(after.bytes_sent - before.bytes_sent)};
    dist::sum_pairwise(all, sums);
    const double step = largest(all, own);
    if (i < 0) continue;
    steps.add(step);
    times.push_back({.step_s = step, .exchange_s = sums[0] / R, .wait_s = sums[1] / R});
    bytes = sums[2] / R;
  }
  const StepTime best = *std::ranges::min_element(times, {}, &StepTime::step_s);
  const PoolSplit split =
      processes.group().split.value_or(automatic_split(model, processes.count()));
  const StepExchange least =
      least_exchange(model, static_cast<double>(trainee.dense_parameters()), tokens, split);

  Figures figures;
  figures.add("processes", R);
  figures.add("threads_a_process", at::get_num_threads());
  figures.add("step", steps);
  figures.add("compute_ms", 1e3 * (best.step_s - best.exchange_s - best.wait_s));
  figures.add("exchange_ms", 1e3 * best.exchange_s);
  figures.add("wait_ms", 1e3 * best.wait_s);
  figures.add("tokens_per_s", tokens / steps.best());
  figures.add("bytes_sent", bytes);  // by a process, in a step
  figures.add("least_bytes", least.bytes());
  figures.add("least_pool_bytes", least.pool_bytes);
  return figures;
}

std::vector<std::string> mpirun_here(int processes, std::vector<std::string> command) {
  command.insert(command.begin(), {"mpirun", "-n", std::to_string(processes), "--oversubscribe",
                                   "--bind-to", "none"});
  return command;
}

namespace {

void set_mpirun_environment() {
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, const char*>>{
           {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
           {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
           {"OMPI_MCA_btl", "self,vader"},
           {"OMPI_MCA_pml", "ob1"},
           {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},
           {"OMPI_MCA_plm", "isolated"},
           {"OMPI_MCA_oob_tcp_if_include", "lo"},
           {"OMPI_MCA_mpi_yield_when_idle", "1"},
           {"OMP_NUM_THREADS", "1"}}) {
    setenv(name, value, 1);
  }
}

}  // namespace

std::string output_of(const std::vector<std::string>& command) {
  std::vector<std::string> words = command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  Pipe out;
  char error_file[] = "/tmp/memlayers-bench-XXXXXX";
  const int errors = mkstemp(error_file);
  if (errors < 0) throw Error(std::string(error_file) + ": " + std::strerror(errno));
  unlink(error_file);
  set_mpirun_environment();
  const pid_t child = fork();
  if (child < 0) throw Error(std::string("fork: ") + std::strerror(errno));
  if (child == 0) {
    dup2(out.ends[1], 1);
    dup2(errors, 2);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  out.close_end(1);
  std::string text = out.read_all();
  int status = 0;
  waitpid(child, &status, 0);
  std::string said(4096, '\0');
  const ssize_t length = pread(errors, said.data(), said.size(), 0);
  close(errors);
  said.resize(static_cast<std::size_t>(std::max<ssize_t>(0, length)));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
    throw Error(command[0] + ": expected this command in PATH, found none");
  }
  // Of what all processes said, the first line of ours is what matters.
  const std::string mark = "memlayers: error: ";
  const std::size_t at = said.find(mark);
  const std::string line = at == std::string::npos ? said : said.substr(at + mark.size());
  throw Error(command[0] + " failed: " + line.substr(0, line.find('\n')));
}

}  // namespace memlayers::bench
