// SPDX-License-Identifier: Apache-2.0
// OpenAI's interface and ours, over an engine (docs/serving.md).
#pragma once

#include <memory>

#include "api/engine.h"
#include "api/options.h"
#include "http/server.h"

namespace memlayers::api {

struct Shared;

// Turns HTTP requests into calls of an engine. The HTTP server's thread waits for nothing: what
// takes time is done by threads of the service, and answers are written by the engine's.
//
// The engine outlives the service; the HTTP server has ended before the service does. Functions may
// be called from several threads.
class Service {
 public:
  Service(Engine& engine, ServiceOptions options);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  http::Handler handler();
  void set_keys(Keys keys);  // for requests that come from now on
  // From now on requests are refused with a 503, and /ready and /health say so. Answers go on.
  void drain();

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace memlayers::api
