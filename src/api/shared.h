// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "api/engine.h"
#include "api/json_schema.h"
#include "api/log.h"
#include "api/metrics.h"
#include "api/openapi.h"
#include "api/options.h"
#include "api/request.h"
#include "api/ticker.h"
#include "api/token_text.h"
#include "api/workers.h"

namespace memlayers::api {

// What all requests of a service use. Each of them holds it, so that an engine's last words find
// it; stop() ends its threads before the engine may go.
struct Shared {
  Shared(Engine& of, ServiceOptions given)
      : options(std::move(given)),
        engine(of),
        texts(of.tokenizer()),
        openapi(text_of(openapi_document(engine.model_id()))),
        log(options.log_format, options.log),
        asks(options.ask_threads),
        edits(options.edit_threads),
        ticker(options.comment_s / 2) {}
  Reading reading(std::string_view text = {}) {
    return {engine, options, [this](std::string_view schema) { return grammar(schema); }, text};
  }
  std::shared_ptr<const Grammar> grammar(std::string_view schema) {
    std::call_once(has_grammars, [this] {  // with the first that is asked for: it takes a while
      grammars = std::make_unique<JsonGrammars>(engine.tokenizer(), engine.end_tokens());
    });
    return grammars->schema(schema);
  }
  void stop() {
    ticker.stop();
    asks.stop();
    edits.stop();
  }

  const ServiceOptions options;
  Engine& engine;
  const TokenTexts texts;
  std::once_flag has_grammars;
  std::unique_ptr<JsonGrammars> grammars;
  const std::string openapi;  // the document
  Metrics metrics;
  Log log;
  std::atomic<bool> is_draining{false};
  std::atomic<std::shared_ptr<const Keys>> keys{std::make_shared<const Keys>(options.keys)};
  Workers asks, edits;  // texts to take apart, and what waits for the disk or a model
  Ticker ticker;
};

}  // namespace memlayers::api
