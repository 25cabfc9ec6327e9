// SPDX-License-Identifier: Apache-2.0
// Templates in the part of Jinja that chat templates use, as transformers runs them (an immutable
// sandbox, trim_blocks, lstrip_blocks, loop controls): docs/chat.md. A template is a program from
// outside. It reaches its variables, the methods and functions listed there, and nothing else.
#pragma once

#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/limits.h"
#include "jinja/text.h"
#include "jinja/value.h"
#include "memlayers/error.h"

namespace memlayers::jinja {

// A template called raise_exception(): what it was given is not what it takes.
class TemplateRefusal : public Error {
 public:
  TemplateRefusal(const std::string& place, const std::string& message)
      : Error(place + message), message_(message) {}
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

struct Variable {
  std::string name;
  Value value;
};

struct RenderOptions {
  Limits limits = {};
  std::int64_t given_bytes = 0;       // of all variables: Limits::steps_a_byte
  std::function<std::tm()> now = {};  // of strftime_now(); absent: the local time
};

// Immutable; may be rendered from several threads.
class Template {
 public:
  // `name` begins every error. Throws Error with the line of what is no Jinja or none of ours.
  Template(std::string name, std::string_view source);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // Throws Error with the line, of what goes wrong and of limits; TemplateRefusal.
  Text render(const std::vector<Variable>& variables, const RenderOptions& options = {}) const;

 private:
  struct State;
  std::unique_ptr<const State> state_;
};

}  // namespace memlayers::jinja
