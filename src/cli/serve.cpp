// SPDX-License-Identifier: Apache-2.0
// The process that serves: engine, interface and HTTP server put together, and the signals.
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <functional>
#include <iostream>
#include <memory>
#include <thread>

#include "api/service.h"
#include "cli/command.h"
#include "cli/generate_options.h"
#include "cli/options.h"
#include "cli/section.h"
#include "cli/terminal.h"
#include "http/descriptors.h"
#include "http/server.h"
#include "memlayers/error.h"
#include "serve/model_engine.h"

namespace memlayers::cli {
namespace {

struct ServeArguments {
  std::string model, host = "127.0.0.1", api_key_file, admin_key_file, log = "text",
                     pool = "mapped", config;
  std::uint16_t port = 8080;
  std::vector<std::string> hosts;
  std::size_t connections = http::Limits{}.connections,
              of_address = http::Limits{}.connections_per_address;
  double drain_s = 30;
  bool logs_access = false, logs_prompts = false, has_no_prefix_cache = false,
       has_no_confidence = false;
  serve::EngineOptions engine;
  int threads = 0;
};

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

void check(const ServeArguments& arguments) {
  if (!is_loopback(arguments.host) && arguments.api_key_file.empty()) {
    throw UsageError("serve: --host " + arguments.host +
                     ": expected --api-key-file FILE, as others than this machine's users reach "
                     "that address, got none");
  }
  if (arguments.connections < 1) {
    throw UsageError("serve: --connections: expected at least 1, got 0");
  }
  if (arguments.of_address < 1) {
    throw UsageError("serve: --connections-per-address: expected at least 1, got 0");
  }
  if (!(arguments.drain_s >= 0)) throw UsageError("serve: --drain: expected 0 or more seconds");
  try {
    arguments.engine.validate();
  } catch (const Error& error) {
    throw UsageError(std::string("serve: --") + error.what());
  }
}

api::Keys read_keys(const ServeArguments& arguments) {
  api::Keys keys;
  if (!arguments.api_key_file.empty()) keys.ask = api::read_keys(arguments.api_key_file);
  if (!arguments.admin_key_file.empty()) keys.admin = api::read_keys(arguments.admin_key_file);
  return keys;
}

api::ServiceOptions service_options(const ServeArguments& arguments) {
  api::ServiceOptions options;
  options.keys = read_keys(arguments);
  options.hosts = arguments.hosts;
  const bool is_v6 = arguments.host.find(':') != std::string::npos && arguments.host[0] != '[';
  options.hosts.push_back(is_v6 ? "[" + arguments.host + "]" : arguments.host);
  options.log_format = arguments.log == "json" ? api::LogFormat::kJson : api::LogFormat::kText;
  options.log = [](const std::string& line) { std::cerr << line + "\n" << std::flush; };
  options.logs_access = arguments.logs_access;
  options.logs_prompts = arguments.logs_prompts;
  return options;
}

// And lets this process have as many files open.
http::Limits limits(const ServeArguments& arguments) {
  http::Limits given;
  given.connections = arguments.connections;
  given.connections_per_address = arguments.of_address;
  const std::size_t wanted = http::descriptors_of(given);
  if (const std::size_t there = http::allow_descriptors(wanted); there < wanted) {
    print_warning("--connections " + std::to_string(arguments.connections) + " can take " +
                  std::to_string(wanted) + " open files, this process may have " +
                  std::to_string(there) + " (ulimit -Hn): some will wait");
  }
  return given;
}

// Blocks the signals of a server in this thread and those that it starts from now on.
sigset_t block_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return set;
}

// Waits for them, in a thread of its own.
class SignalThread {
 public:
  // end: at the first SIGTERM or SIGINT, beside this thread; the second ends the process.
  SignalThread(sigset_t set, std::function<void()> end, std::function<void()> reread)
      : thread_([this, set, end = std::move(end), reread = std::move(reread)] {
          std::thread ending;
          for (int signal = 0; sigwait(&set, &signal) == 0 && !is_over_;) {
            if (signal == SIGHUP) {
              reread();
            } else if (ending.joinable()) {
              ::_exit(128 + signal);
            } else {
              ending = std::thread(end);
            }
          }
          if (ending.joinable()) ending.join();
        }) {}
  ~SignalThread() {
    is_over_ = true;
    pthread_kill(thread_.native_handle(), SIGHUP);
    thread_.join();
  }
  SignalThread(const SignalThread&) = delete;
  SignalThread& operator=(const SignalThread&) = delete;

 private:
  std::atomic<bool> is_over_ = false;
  std::thread thread_;  // the last
};

int serve(ServeArguments& arguments) {
  check(arguments);
  const api::ServiceOptions options = service_options(arguments);
  const sigset_t signals = block_signals();  // before any other thread
  set_threads(arguments.threads);
  arguments.engine.store.access = row_access(arguments.pool);
  const auto engine = serve::ModelEngine::open(arguments.model, arguments.engine);
  api::Service service(*engine, options);
  const auto server =
      http::Server::listen(arguments.host, arguments.port, limits(arguments), service.handler());
  const std::string place =
      (arguments.host.find(':') == std::string::npos ? arguments.host
                                                     : "[" + arguments.host + "]") +
      ":" + std::to_string(server->port());
  std::cerr << "memlayers: " << engine->model_id() << " at http://" << place << std::endl;
  const SignalThread listening(
      signals,
      [&] {
        service.drain();
        engine->drain();
        const bool is_idle = engine->wait_until_idle(arguments.drain_s);
        if (!is_idle) engine->stop();  // what is left gets its last word
        constexpr double kLastBytes = 2;
        server->drain(kLastBytes);
      },
      [&] {
        try {
          service.set_keys(read_keys(arguments));
        } catch (const Error& error) {
          print_warning(std::string(error.what()) + "; the keys stay as they were");
        }
      });
  server->run();
  engine->stop();
  return 0;
}

}  // namespace

Command serve_command() {
  return {
      "serve", "Answer over HTTP, as OpenAI's interface does, and edit the memory meanwhile",
      "memlayers serve models/smollm2 --port 8080\n"
      "  curl localhost:8080/v1/completions -d '{\"prompt\": \"A dingo is\", "
      "\"max_tokens\": 16}'",
      [](CLI::App& app) -> std::function<int()> {
        auto a = std::make_shared<ServeArguments>();
        serve::EngineOptions& engine = a->engine;
        add_model(app, a->model);
        app.add_option("--host", a->host,
                       "address to listen on; others than loopback need "
                       "--api-key-file")
            ->capture_default_str();
        app.add_option("--port", a->port, "0: any that is free, told on standard error")
            ->capture_default_str();
        app.add_option("--allow-host", a->hosts,
                       "name that requests may call this server by in their header Host, beside "
                       "this machine's, where there is no --api-key-file; may be given again");
        app.add_option("--connections", a->connections, "that are open at once; beyond: 503")
            ->capture_default_str();
        app.add_option("--connections-per-address", a->of_address,
                       "of one client's address (IPv6: network); beyond: 429")
            ->capture_default_str();
        app.add_option("--api-key-file", a->api_key_file,
                       "keys of those who may ask, one a line; absent: everybody");
        app.add_option("--admin-key-file", a->admin_key_file, "keys of those who may edit as well");
        app.add_option("--slots", engine.sequences, "sequences answered at once")
            ->capture_default_str();
        app.add_option("--queue", engine.waiting, "sequences that wait; beyond: 429")
            ->capture_default_str();
        app.add_option("--context", engine.context,
                       "tokens of prompt and answer, at most; absent: the model's");
        app.add_option("--prefill", engine.prefill_tokens,
                       "tokens of prompts that one step takes in, at most")
            ->capture_default_str();
        app.add_option("--slowdown", engine.slowdown,
                       "times that a step lasts at most, about, for taking in prompts beside the "
                       "answers of others; 0: --prefill at once")
            ->capture_default_str();
        app.add_option("--cache-bytes", engine.cache_bytes,
                       "of keys and values; absent: of --slots whole contexts, at most half "
                       "of the memory")
            ->transform(CLI::AsSizeValue(/*kb_is_1000=*/false));
        app.add_flag("--no-prefix-cache", a->has_no_prefix_cache,
                     "keep nothing of answered prompts");
        app.add_option("--speculate", engine.drafted_tokens,
                       "tokens that a step tries because they stood behind the same words "
                       "before; 0: none")
            ->capture_default_str();
        app.add_option("--versions", engine.held_versions,
                       "of the pool, that requests may still name")
            ->capture_default_str();
        app.add_option("--name", engine.model_id,
                       "what clients call the model; absent: its "
                       "folder's name");
        add_gate(app, engine.gate_below);
        app.add_flag("--no-confidence", a->has_no_confidence,
                     "leave memory_confidence out of answers, and save the pass over prompts that "
                     "it takes");
        app.add_option("--drain", a->drain_s, "seconds that answers may still take after SIGTERM")
            ->capture_default_str();
        app.add_option("--log", a->log, "how lines on standard error are written")
            ->check(CLI::IsMember({"text", "json"}))
            ->capture_default_str();
        app.add_flag("--access-log", a->logs_access, "a line for each request");
        app.add_flag("--log-prompts", a->logs_prompts, "with what was asked and answered");
        add_pool_access(app, a->pool);
        add_threads(app, a->threads);
        app.add_option("--config", a->config,
                       "a TOML file whose section [serve] has options, by their names");
        return [a, verb = &app] {
          if (!a->config.empty()) read_section(*verb, a->config, "serve");
          a->engine.keeps_prefixes = !a->has_no_prefix_cache;
          a->engine.tells_confidence = !a->has_no_confidence;
          return serve(*a);
        };
      }};
}

}  // namespace memlayers::cli
