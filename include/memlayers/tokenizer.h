// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers {

// Text <-> token ids. Immutable after loading: safe to use from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Text must be valid UTF-8 (throws Error with the byte's offset). No BOS or EOS is added; text
  // that spells a special token ("</s>") is plain text.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  // The tokens of `text` standing behind other text and one space: what an answer is behind its
  // prompt. encode(p) + encode_continuation(a) decodes to p + " " + a.
  virtual std::vector<std::int32_t> encode_continuation(std::string_view text) const = 0;
  // Special tokens are left out; bytes that are not UTF-8 become U+FFFD. Throws Error for an id
  // outside the vocabulary. decode(encode(x)) is x where the tokenizer's normalizer leaves x as it
  // is; those trained here do so for all text but U+2581, SentencePiece's own sign for a space.
  virtual std::string decode(std::span<const std::int32_t> tokens) const = 0;

  virtual std::int64_t vocab_size() const = 0;
  virtual std::optional<std::int32_t> bos() const = 0;
  virtual std::optional<std::int32_t> eos() const = 0;
  virtual std::optional<std::int32_t> pad() const = 0;

  // The file it came from: its name ("tokenizer.model" or "tokenizer.json") and its bytes, to be
  // copied into a model folder.
  virtual std::string file_name() const = 0;
  virtual const std::string& file_bytes() const = 0;
};

// A tokenizer.model (SentencePiece) or tokenizer.json (Hugging Face BPE) file, or a folder that
// holds one (tokenizer.json is preferred; tokenizer_config.json, where present, names BOS and EOS).
// Throws Error naming file and field for anything it cannot do exactly as the original would.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& path);

// Trains a SentencePiece BPE with byte fallback on the texts; deterministic. `vocab_size` counts
// all pieces: <unk>, <s>, </s>, 256 bytes, then the learned ones. Throws Error when the texts
// cannot fill it (the message says how many pieces can be had).
std::shared_ptr<const Tokenizer> train_tokenizer(const std::vector<std::string>& texts,
                                                 std::int64_t vocab_size);

// Turns a stream of tokens into a stream of text: holds back bytes that are not yet a whole
// character.
// The pieces together are what decode() gives of all tokens behind the prompt.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer,
                         std::vector<std::int32_t> prompt = {});
  std::string push(std::int32_t token);  // the new text, perhaps empty
  std::string finish();                  // what was held back

 private:
  std::string take(std::string_view text);
  void shorten();

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<std::int32_t> tokens_;  // the last ones: those that matter for what follows
  std::string given_;                 // of their text
};

}  // namespace memlayers
