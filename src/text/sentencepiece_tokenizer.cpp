// SPDX-License-Identifier: Apache-2.0
#include <sentencepiece_processor.h>

#include <utility>

#include "io/shown.h"
#include "memlayers/error.h"
#include "text/sentencepiece_cuts.h"
#include "text/sentencepiece_quiet.h"
#include "text/spelled_byte.h"
#include "text/token_trie.h"
#include "text/tokenizer_file.h"
#include "text/utf8_stream.h"

namespace memlayers::text {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's spelling of a space
// libsentencepiece needs some 200 bytes a byte of text: it gets parts of the first size, or as much
// more as it takes to the next place to cut.
constexpr std::size_t kChunkBytes = 1 << 16, kMaxChunkBytes = 1 << 21;

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::string& path, std::string bytes,
                         const TokenizerSettings& settings, TokenizerFiles beside)
      : files_(std::move(beside)), traits_(check_sentencepiece(path, bytes)) {
    silence_sentencepiece();
    const auto status = processor_.LoadFromSerializedProto(bytes);
    if (!status.ok()) {
      throw Error(path + ": expected a SentencePiece model, got one that cannot be loaded: " +
                  io::shown(status.ToString()));
    }
    files_.insert(files_.begin(), {"tokenizer.model", std::move(bytes)});
    bos_ = special(settings.bos, processor_.bos_id());
    eos_ = special(settings.eos, processor_.eos_id());
    pad_ = special(settings.pad, processor_.pad_id());
    if (bos_ && settings.add_bos.value_or(true)) prefix_ = {*bos_};
    if (eos_ && settings.add_eos.value_or(false)) suffix_ = {*eos_};
    for (int id = 0; id < processor_.GetPieceSize(); ++id) {
      const bool is_normal = !processor_.IsControl(id) && !processor_.IsUnknown(id) &&
                             !processor_.IsByte(id) && !processor_.IsUnused(id);
      cuts_.add(processor_.IdToPiece(id), is_normal);
      if (processor_.IsControl(id)) control_ids_.push_back(id);
    }
    std::vector<std::string_view> spelled;
    for (const std::int32_t id : control_ids_) spelled.emplace_back(processor_.IdToPiece(id));
    controls_.build(spelled);
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    check_utf8(text, "text to encode");
    std::vector<std::int32_t> tokens;
    // A part begins with the last character of the one before it, so that nothing is put before
    // what counts; the tokens of that character are left out.
    for (std::size_t begin = 0, end = 0;; begin = end) {
      end = text.size() - begin > kChunkBytes ? cuts_.next(text, begin + kChunkBytes) : text.size();
      if (end - begin > kMaxChunkBytes) {
        throw Error("text to encode: expected a place in each " + std::to_string(kMaxChunkBytes) +
                    " bytes that no piece of tokenizer.model reaches across, got " +
                    std::to_string(end - begin) + " bytes without one");
      }
      std::size_t first = begin;
      if (first > 0) --first;
      while (first > 0 && (static_cast<unsigned char>(text[first]) & 0xC0) == 0x80) --first;
      const std::vector<int> part = ids(text.substr(first, end - first));
      const std::size_t known = first == begin ? 0 : ids(text.substr(first, begin - first)).size();
      tokens.insert(tokens.end(), part.begin() + static_cast<std::ptrdiff_t>(known), part.end());
      if (end == text.size()) break;
    }
    return tokens;
  }

  std::vector<std::int32_t> encode_special(std::string_view) const override {
    throw Error(
        "text to encode: expected a tokenizer.json to find special tokens in text, got a "
        "tokenizer.model");
  }
  // What spells a control piece stands between texts that each begin anew, as in transformers' slow
  // tokenizers and llama.cpp.
  std::vector<std::int32_t> encode_pieces(std::span<const PromptPiece> pieces) const override {
    std::vector<std::int32_t> tokens;
    std::string text;
    const auto put_text = [&] {
      if (text.empty()) return;
      const auto part = encode(text);
      tokens.insert(tokens.end(), part.begin(), part.end());
      text.clear();
    };
    for (std::size_t i = 0; i < pieces.size();) {
      std::string piece = pieces[i].text;
      const bool is_template = pieces[i].is_template;
      for (++i; i < pieces.size() && pieces[i].is_template == is_template; ++i) {
        piece += pieces[i].text;
      }
      std::size_t done = 0;
      for (const TokenTrie::Match& match :
           is_template ? controls_.find_all(piece) : std::vector<TokenTrie::Match>()) {
        text.append(piece, done, match.begin - done);
        put_text();
        tokens.push_back(control_ids_[match.index]);
        done = match.end;
      }
      text.append(piece, done);
    }
    put_text();
    return tokens;
  }
  std::string token(std::int32_t id) const override {
    check_token(id);
    return processor_.IdToPiece(id);
  }

  std::vector<std::int32_t> encode_continuation(std::string_view text) const override {
    if (!traits_.add_dummy_prefix) return encode(" " + std::string(text));
    if (text.empty()) return {processor_.PieceToId(kSpace)};  // no prefix is put before nothing
    return encode(text);
  }

  std::unique_ptr<TextStream> decode_stream() const override {
    return std::make_unique<Stream>(*this);
  }

  const std::vector<std::int32_t>& prefix() const override { return prefix_; }
  const std::vector<std::int32_t>& suffix() const override { return suffix_; }
  std::int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::optional<std::int32_t> bos() const override { return bos_; }
  std::optional<std::int32_t> eos() const override { return eos_; }
  std::optional<std::int32_t> pad() const override { return pad_; }
  const TokenizerFiles& files() const override { return files_; }

 private:
  class Stream : public TextStream {
   public:
    explicit Stream(const SentencePieceTokenizer& tokenizer)
        : tokenizer_(tokenizer),
          at_start_(tokenizer.traits_.add_dummy_prefix ||
                    tokenizer.traits_.remove_extra_whitespaces) {}

    std::string push(std::int32_t token) override {
      const sentencepiece::SentencePieceProcessor& processor = tokenizer_.processor_;
      tokenizer_.check_token(token);
      if (processor.IsControl(token)) return {};
      std::string_view piece = processor.IdToPiece(token);
      std::string bytes;
      if (processor.IsUnknown(token)) {
        bytes = tokenizer_.traits_.unknown_surface;
      } else if (const auto byte = read_spelled_byte(piece); byte && processor.IsByte(token)) {
        bytes = static_cast<char>(*byte);
      } else {
        if (at_start_ && piece.starts_with(kSpace)) {
          piece.remove_prefix(kSpace.size());
          // Where a normalizer takes all leading spaces, so does the decoder.
          if (tokenizer_.traits_.remove_extra_whitespaces && piece.empty()) return {};
        }
        append_spaced(piece, bytes);
      }
      at_start_ = false;
      return text_.push(bytes);
    }
    std::string finish() override { return text_.finish(); }

   private:
    const SentencePieceTokenizer& tokenizer_;
    bool at_start_;
    Utf8Stream text_{Replace::kEachByte};
  };

  static void append_spaced(std::string_view piece, std::string& text) {
    for (;;) {
      const std::size_t space = piece.find(kSpace);
      text += piece.substr(0, space);
      if (space == std::string_view::npos) return;
      text += ' ';
      piece.remove_prefix(space + kSpace.size());
    }
  }

  std::vector<int> ids(std::string_view text) const {
    std::vector<int> ids;
    const auto status = processor_.Encode(text, &ids);
    if (!status.ok())
      throw Error("text to encode: SentencePiece failed: " + io::shown(status.ToString()));
    return ids;
  }

  void check_token(std::int32_t token) const {
    if (token < 0 || token >= processor_.GetPieceSize()) {
      throw Error("tokens to decode: expected ids below " + std::to_string(vocab_size()) +
                  ", got " + std::to_string(token));
    }
  }

  std::optional<std::int32_t> special(const TokenizerSettings::Name& name, int own) const {
    if (!name.given) return own < 0 ? std::nullopt : std::optional<std::int32_t>(own);
    if (!name.piece) return std::nullopt;
    const int id = processor_.PieceToId(*name.piece);
    if (processor_.IdToPiece(id) != *name.piece) {
      throw Error(name.field + ": expected a piece of tokenizer.model, got " +
                  io::quote(*name.piece));
    }
    return id;
  }

  TokenizerFiles files_;
  const SentencePieceTraits traits_;
  sentencepiece::SentencePieceProcessor processor_;
  std::optional<std::int32_t> bos_, eos_, pad_;
  std::vector<std::int32_t> prefix_, suffix_;
  SentencePieceCuts cuts_{traits_};
  TokenTrie controls_;
  std::vector<std::int32_t> control_ids_;
};

}  // namespace

std::shared_ptr<const Tokenizer> parse_sentencepiece(const std::string& path, std::string bytes,
                                                     const TokenizerSettings& settings,
                                                     TokenizerFiles beside) {
  return std::make_shared<SentencePieceTokenizer>(path, std::move(bytes), settings,
                                                  std::move(beside));
}

}  // namespace memlayers::text
