// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace memlayers {

using TokenizerFiles = std::vector<std::pair<std::string, std::string>>;  // names and bytes

// A stretch of a text, and whether a template wrote it or a stranger.
struct PromptPiece {
  std::string text;
  bool is_template = false;
  bool operator==(const PromptPiece&) const = default;
};

// decode(), a token at a time. What push() and finish() give together is what decode() gives of the
// same tokens; text is given as soon as no further token can change it.
class TextStream {
 public:
  virtual ~TextStream() = default;
  virtual std::string push(std::int32_t token) = 0;  // the new text, perhaps empty
  virtual std::string finish() = 0;                  // what was held back
};

// Text <-> token ids. Immutable after loading: safe to use from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Text must be valid UTF-8 (throws Error with the byte's offset). No special token is added: see
  // encode_prompt(). Text that spells one ("</s>") is plain text.
  virtual std::vector<std::int32_t> encode(std::string_view text) const = 0;
  // encode(), but what spells a special token becomes it: for text that is not a stranger's.
  // Throws Error for a tokenizer.model, whose control pieces have no spelling.
  virtual std::vector<std::int32_t> encode_special(std::string_view text) const = 0;
  // encode() of the pieces joined, but what spells a special token, all of it within what the
  // template wrote, becomes it: what a stranger writes is text, and hides no token of the template.
  // With a tokenizer.model these are its control pieces.
  virtual std::vector<std::int32_t> encode_pieces(std::span<const PromptPiece> pieces) const;
  // The tokens of `text` standing behind other text and one space: what an answer is behind its
  // prompt. encode(p) + encode_continuation(a) decodes to p + " " + a.
  virtual std::vector<std::int32_t> encode_continuation(std::string_view text) const = 0;

  // The special tokens that the tokenizer's files put before and behind a text: with LLaMA 2's
  // {BOS} and {}, with GPT-2's none.
  virtual const std::vector<std::int32_t>& prefix() const = 0;
  virtual const std::vector<std::int32_t>& suffix() const = 0;
  // prefix() and the text: what a model is given to go on from, wherever there is a prompt. No
  // suffix(): it would end the text.
  std::vector<std::int32_t> encode_prompt(std::string_view text) const;
  // encode_prompt() and end_of_document().
  std::vector<std::int32_t> encode_document(std::string_view text) const;
  // What a model that is trained on a document learns to say at its end: suffix(), and EOS (where
  // there is one) unless suffix() ends with it.
  std::vector<std::int32_t> end_of_document() const;
  // Special tokens are left out; bytes that are not UTF-8 become U+FFFD. Throws Error for an id
  // outside the vocabulary. decode(encode(x)) is x where the tokenizer's normalizer leaves x as it
  // is; those trained here do so for all text but U+2581, SentencePiece's own sign for a space.
  std::string decode(std::span<const std::int32_t> tokens) const;
  // Used no longer than the tokenizer lives.
  virtual std::unique_ptr<TextStream> decode_stream() const = 0;

  // As the vocabulary spells it; "" for an id that no token has. Throws Error as decode() does.
  virtual std::string token(std::int32_t id) const = 0;
  virtual std::int64_t vocab_size() const = 0;
  virtual std::optional<std::int32_t> bos() const = 0;
  virtual std::optional<std::int32_t> eos() const = 0;
  virtual std::optional<std::int32_t> pad() const = 0;

  // The files it came from, to be copied into a model folder: first "tokenizer.model" or
  // "tokenizer.json", then those beside it that change what it does.
  virtual const TokenizerFiles& files() const = 0;
  const std::string& file_name() const { return files().front().first; }
  const std::string& file_bytes() const { return files().front().second; }
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

// Turns a stream of tokens into a stream of text, behind a prompt: the pieces together are what
// decode() gives of prompt and tokens without what it gives of the prompt (as far as the two begin
// alike). Held back is only what a further token may change: unfinished characters; with a decoder
// of bytes ("ByteFallback") a run of them, which is text or not as a whole.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer,
                         const std::vector<std::int32_t>& prompt = {});
  std::string push(std::int32_t token);  // the new text, perhaps empty
  std::string finish();                  // what was held back

 private:
  std::string behind_prompt(std::string text);

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::unique_ptr<TextStream> stream_;
  std::string prompt_rest_;  // the prompt's text that is still to come out
};

}  // namespace memlayers
