// SPDX-License-Identifier: Apache-2.0
#include "bench/model.h"

#include <string>
#include <utility>

#include "bench/subjects.h"
#include "memlayers/decoder.h"
#include "memlayers/error.h"
#include "nn/packed_weights.h"

namespace memlayers::bench {
namespace {

// Tokens that carry no meaning, and none of them an end.
std::vector<std::int32_t> some_tokens(std::int64_t count, std::int64_t first, std::int64_t vocab) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<std::int32_t>((first + 7919 * i) % vocab));
  }
  return tokens;
}

void check(const char* what, std::int64_t tokens, std::int64_t context) {
  if (tokens < context) return;
  throw Error(std::string(what) + ": expected less than the model's context of " +
              std::to_string(context) + " tokens, got " + std::to_string(tokens));
}

}  // namespace

double decode_bytes(Llama& model) {
  std::int64_t bytes = nn::packed_bytes(model);
  for (const auto& [name, parameter] : model->dense_parameters()) {
    const bool is_embedding =
        name == "model.embed_tokens.weight" && !model->config().tie_embeddings;
    bytes += static_cast<std::int64_t>(parameter.nbytes()) / (is_embedding ? parameter.size(0) : 1);
  }
  for (const auto& [index, layer] : model->memory_layers()) {
    const auto stored = model->pool()->snapshot();
    if (layer->keys.defined()) {
      bytes += packed_key_bytes(layer) - static_cast<std::int64_t>(layer->keys.nbytes());
    }
    bytes += layer->config().heads * layer->config().knn *
             (stored ? stored->row_bytes() : row_bytes(model->pool()));
  }
  return static_cast<double>(bytes);
}

Figures bench_model(Llama model, const std::shared_ptr<const Tokenizer>& tokenizer,
                    const ModelCase& c, Stream& stream) {
  const std::int64_t context = model->config().context, vocab = tokenizer->vocab_size();
  check("prompt", c.prompt, context);
  check("tokens", c.tokens, context);
  Decoder decoder(model, tokenizer, {.prefill_tokens = c.prefill, .gives_text = false});

  Times prompt;
  std::vector<Times> decode(c.streams.size());
  for (int i = -1; i < c.repeat; ++i) {  // in turn, so that what disturbs one disturbs the others
    const double prompt_s = seconds_of([&] {
      decoder.join(some_tokens(c.prompt, i + 1, vocab), {.max_tokens = 1, .ignore_eos = true});
      while (!decoder.is_idle()) decoder.step();
    });
    if (i >= 0) prompt.add(prompt_s);
    for (std::size_t n = 0; n < c.streams.size(); ++n) {
      for (std::int64_t s = 0; s < c.streams[n]; ++s) {
        decoder.join(some_tokens(1, s + 1, vocab),
                     {.max_tokens = c.tokens + 1, .ignore_eos = true});
      }
      decoder.step();
      const double decode_s = seconds_of([&] {
        while (!decoder.is_idle()) decoder.step();
      });
      if (i >= 0) decode[n].add(decode_s);
    }
  }
  stream.measure();
  const double bytes = decode_bytes(model);

  Figures figures;
  figures.add("prompt", prompt);
  figures.add("prompt_tokens_per_s", static_cast<double>(c.prompt) / prompt.best());
  for (std::size_t n = 0; n < c.streams.size(); ++n) {
    const double per_s = static_cast<double>(c.streams[n] * c.tokens) / decode[n].best();
    const std::string name =
        c.streams[n] == 1 ? "decode" : "decode_" + std::to_string(c.streams[n]);
    figures.add(name + "_tokens_per_s", per_s);
    if (c.streams[n] == 1) figures.add("decode_share", per_s * bytes / (stream.read_gbs() * 1e9));
  }
  figures.add("decode_bytes", bytes);
  figures.add("stream_gbs", stream.read_gbs());
  return figures;
}

}  // namespace memlayers::bench
