// SPDX-License-Identifier: Apache-2.0
#include "api/metrics.h"

#include <algorithm>

#include "io/number_text.h"

namespace memlayers::api {
namespace {

// Seconds; about three to a power of ten, from a fast token to a request's longest time.
const std::vector<double> kFirst{0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,
                                 2,     5,     10,   20,   50,   100, 300, 600};
const std::vector<double> kNext{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10};
const std::vector<double> kWhole{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,   2,
                                 5,    10,   20,   50,  100, 200, 300, 600};

// A label's value: quotation marks, backslashes and line ends would end it.
std::string label(const std::string& name, const std::string& value) {
  std::string text = name + "=\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return text + '"';
}

std::string head(const std::string& name, const std::string& kind, const std::string& about) {
  return "# HELP " + name + " " + about + "\n# TYPE " + name + " " + kind + "\n";
}

class Page {
 public:
  explicit Page(std::string labels) : labels_(std::move(labels)) {}
  template <class Number>
  void gauge(const std::string& name, Number value, const std::string& about) {
    line(name, "gauge", value, about);
  }
  template <class Number>
  void counter(const std::string& name, Number value, const std::string& about) {
    line(name, "counter", value, about);
  }
  void add(const std::string& text) { text_ += text; }
  const std::string& text() const { return text_; }
  const std::string& labels() const { return labels_; }

 private:
  template <class Number>
  void line(const std::string& name, const char* kind, Number value, const std::string& about) {
    text_ += head(name, kind, about) + name + "{" + labels_ + "} " + io::number_text(value) + "\n";
  }
  std::string labels_, text_;
};

double rate(std::int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0;
}

void add_vllm(Page& page, const EngineCounters& engine) {
  page.gauge("vllm:num_requests_running", engine.running, "Sequences that are being answered.");
  page.gauge("vllm:num_requests_waiting", engine.waiting, "Sequences in the queue.");
  page.gauge("vllm:kv_cache_usage_perc", engine.cache_usage,
             "Share of the keys' and values' memory in use, 0 to 1.");
  page.counter("vllm:prefix_cache_queries_total", engine.prefix_queries,
               "Prompt tokens that were looked for in the prefix cache.");
  page.counter("vllm:prefix_cache_hits_total", engine.prefix_hits,
               "Prompt tokens that the prefix cache had.");
  page.counter("vllm:prompt_tokens_total", engine.prompt_tokens, "Prompt tokens taken in.");
  page.counter("vllm:generation_tokens_total", engine.generated_tokens, "Tokens generated.");
}

void add_llamacpp(Page& page, const EngineCounters& engine) {
  page.counter("llamacpp:prompt_tokens_total", engine.prompt_tokens, "Prompt tokens taken in.");
  page.counter("llamacpp:prompt_seconds_total", engine.prompt_seconds,
               "Seconds of steps that took in prompts.");
  page.counter("llamacpp:tokens_predicted_total", engine.generated_tokens, "Tokens generated.");
  page.counter("llamacpp:tokens_predicted_seconds_total", engine.decode_seconds,
               "Seconds of steps that generated tokens.");
  page.gauge("llamacpp:prompt_tokens_seconds", rate(engine.prompt_tokens, engine.prompt_seconds),
             "Mean prompt tokens a second.");
  page.gauge("llamacpp:predicted_tokens_seconds",
             rate(engine.generated_tokens, engine.decode_seconds),
             "Mean generated tokens a second.");
  page.gauge("llamacpp:requests_processing", engine.running, "Sequences that are being answered.");
  page.gauge("llamacpp:requests_deferred", engine.waiting, "Sequences in the queue.");
}

void add_memory(Page& page, const Metrics::MemoryFacts& memory) {
  page.gauge("memlayers:pool_version", memory.version, "Version of the pool.");
  page.gauge("memlayers:pool_writable", memory.is_writable ? 1 : 0, "Whether it takes edits.");
  page.gauge("memlayers:patches", memory.patches, "Patches in the pool's stack.");
  page.gauge("memlayers:canaries", memory.canaries, "Questions that are asked after each edit.");
  page.gauge("memlayers:canaries_failing", memory.failing_canaries,
             "Of these, those whose answer was another one when last asked.");
}

}  // namespace

void Histogram::add(double value) {
  const auto place = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  ++counts_[static_cast<std::size_t>(place)];
  sum_ += value;
}

std::string Histogram::text(const std::string& name, const std::string& about,
                            const std::string& labels) const {
  std::string lines = head(name, "histogram", about);
  std::int64_t below = 0;
  for (std::size_t i = 0; i < counts_.size(); ++i) {
    below += counts_[i];
    const std::string bound = i < bounds_.size() ? io::number_text(bounds_[i]) : "+Inf";
    lines += name + "_bucket{" + labels + ",le=\"" + bound + "\"} " + std::to_string(below) + "\n";
  }
  lines += name + "_sum{" + labels + "} " + io::number_text(sum_) + "\n";
  return lines + name + "_count{" + labels + "} " + std::to_string(below) + "\n";
}

Metrics::Metrics() : first_token_(kFirst), next_token_(kNext), whole_(kWhole) {
  for (const char* reason : {"stop", "length", "error"}) finished_[reason] = 0;  // rates need a 0
}

void Metrics::first_token(double seconds) {
  const std::lock_guard lock(mutex_);
  first_token_.add(seconds);
}

void Metrics::next_token(double seconds) {
  const std::lock_guard lock(mutex_);
  next_token_.add(seconds);
}

void Metrics::finished(const std::string& reason, double seconds) {
  const std::lock_guard lock(mutex_);
  ++finished_[reason];
  whole_.add(seconds);
}

void Metrics::cancelled() {
  const std::lock_guard lock(mutex_);
  ++cancelled_;
}

void Metrics::answered(int status) {
  const std::lock_guard lock(mutex_);
  ++answered_[status];
}

std::string Metrics::text(const EngineCounters& engine, const std::string& model, bool is_draining,
                          const std::optional<MemoryFacts>& memory) const {
  Page page(label("model_name", model));
  add_vllm(page, engine);
  const std::lock_guard lock(mutex_);
  page.add(head("vllm:request_success_total", "counter", "Sequences that ended, by how."));
  for (const auto& [reason, count] : finished_) {
    page.add("vllm:request_success_total{" + page.labels() + "," +
             label("finished_reason", reason) + "} " + std::to_string(count) + "\n");
  }
  page.add(first_token_.text("vllm:time_to_first_token_seconds",
                             "From a request to its first token.", page.labels()));
  page.add(next_token_.text("vllm:inter_token_latency_seconds",
                            "From a sequence's token to its next.", page.labels()));
  page.add(whole_.text("vllm:e2e_request_latency_seconds", "From a request to a sequence's end.",
                       page.labels()));
  add_llamacpp(page, engine);
  page.counter("memlayers:cancelled_total", cancelled_,
               "Requests whose client left before the answer's end.");
  page.counter("memlayers:drafted_tokens_total", engine.drafted_tokens, "Tokens guessed ahead.");
  page.counter("memlayers:accepted_tokens_total", engine.accepted_tokens,
               "Of these, those that were right.");
  page.gauge("memlayers:draining", is_draining ? 1 : 0, "Whether the server takes no requests.");
  page.gauge("memlayers:degraded", engine.trouble ? 1 : 0, "Whether health is degraded.");
  page.add(head("memlayers:http_answers_total", "counter", "HTTP answers, by status."));
  for (const auto& [status, count] : answered_) {
    page.add("memlayers:http_answers_total{" + page.labels() + "," +
             label("status", std::to_string(status)) + "} " + std::to_string(count) + "\n");
  }
  if (memory) add_memory(page, *memory);
  return page.text();
}

}  // namespace memlayers::api
