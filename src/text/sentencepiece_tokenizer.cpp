// SPDX-License-Identifier: Apache-2.0
#include <sentencepiece_processor.h>

#include <utility>

#include "memlayers/error.h"
#include "text/sentencepiece_quiet.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's spelling of a space
constexpr std::size_t kChunkBytes = 1
                                    << 16;  // libsentencepiece needs some 150 bytes a byte of text

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::string& path, std::string bytes, const SpecialNames& names)
      : bytes_(std::move(bytes)), traits_(check_sentencepiece(path, bytes_)) {
    silence_sentencepiece();
    const auto status = processor_.LoadFromSerializedProto(bytes_);
    if (!status.ok()) {
      throw Error(path + ": expected a SentencePiece model, got one that cannot be loaded: " +
                  status.ToString());
    }
    bos_ = special(names, names.bos, "bos_token", processor_.bos_id());
    eos_ = special(names, names.eos, "eos_token", processor_.eos_id());
    pad_ = special(names, names.pad, "pad_token", processor_.pad_id());
    can_cut_ = !traits_.has_chars_map;
    for (int id = 0; can_cut_ && id < processor_.GetPieceSize(); ++id) {
      can_cut_ = !crosses_a_word(processor_.IdToPiece(id));
    }
  }

  std::vector<std::int32_t> encode(std::string_view text) const override {
    check_utf8(text, "text to encode");
    std::vector<std::int32_t> tokens;
    while (can_cut_ && text.size() > kChunkBytes) {
      const std::size_t cut = word_end(text, kChunkBytes);
      append(text.substr(0, cut), tokens);
      text.remove_prefix(cut);
      // The dummy prefix of the next chunk is the space it begins with.
      if (traits_.add_dummy_prefix && !text.empty()) text.remove_prefix(1);
      if (text.empty()) return tokens;
    }
    append(text, tokens);
    return tokens;
  }

  std::vector<std::int32_t> encode_continuation(std::string_view text) const override {
    if (!traits_.add_dummy_prefix) return encode(" " + std::string(text));
    if (text.empty()) return {processor_.PieceToId(kSpace)};  // no prefix is put before nothing
    return encode(text);
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    bool at_start = traits_.add_dummy_prefix || traits_.remove_extra_whitespaces;
    for (const std::int32_t token : tokens) {
      check_token(token);
      if (processor_.IsControl(token)) continue;
      std::string_view piece = processor_.IdToPiece(token);
      if (processor_.IsUnknown(token)) {
        text += traits_.unknown_surface;
      } else if (processor_.IsByte(token)) {
        text += static_cast<char>(std::stoi(std::string(piece.substr(3, 2)), nullptr, 16));
      } else {
        if (at_start && piece.starts_with(kSpace)) {
          piece.remove_prefix(kSpace.size());
          // Where a normalizer takes all leading spaces, so does the decoder.
          if (traits_.remove_extra_whitespaces && piece.empty()) continue;
        }
        append_spaced(piece, text);
      }
      at_start = false;
    }
    return replace_invalid_utf8(text, Replace::kEachByte);
  }

  std::int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::optional<std::int32_t> bos() const override { return bos_; }
  std::optional<std::int32_t> eos() const override { return eos_; }
  std::optional<std::int32_t> pad() const override { return pad_; }
  std::string file_name() const override { return "tokenizer.model"; }
  const std::string& file_bytes() const override { return bytes_; }

 private:
  static bool crosses_a_word(std::string_view piece) {
    const std::size_t word = piece.find_first_not_of(kSpace);
    return word != std::string_view::npos && piece.find(kSpace, word) != std::string_view::npos;
  }

  // The first end of a word (a space follows) at or behind `from`; text.size() where there is none.
  static std::size_t word_end(std::string_view text, std::size_t from) {
    for (std::size_t at = from; at < text.size(); ++at) {
      if (text[at] == ' ' && text[at - 1] != ' ' && !text.substr(0, at).ends_with(kSpace))
        return at;
    }
    return text.size();
  }

  static void append_spaced(std::string_view piece, std::string& text) {
    for (;;) {
      const std::size_t space = piece.find(kSpace);
      text += piece.substr(0, space);
      if (space == std::string_view::npos) return;
      text += ' ';
      piece.remove_prefix(space + kSpace.size());
    }
  }

  void append(std::string_view text, std::vector<std::int32_t>& tokens) const {
    std::vector<int> ids;
    const auto status = processor_.Encode(text, &ids);
    if (!status.ok()) throw Error("text to encode: SentencePiece failed: " + status.ToString());
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  }

  void check_token(std::int32_t token) const {
    if (token < 0 || token >= processor_.GetPieceSize()) {
      throw Error("tokens to decode: expected ids below " + std::to_string(vocab_size()) +
                  ", got " + std::to_string(token));
    }
  }

  std::optional<std::int32_t> special(const SpecialNames& names, const SpecialNames::Name& name,
                                      const std::string& field, int own) const {
    if (!name.given) return own < 0 ? std::nullopt : std::optional<std::int32_t>(own);
    if (!name.piece) return std::nullopt;
    const int id = processor_.PieceToId(*name.piece);
    if (processor_.IdToPiece(id) != *name.piece) {
      throw Error(names.path + ": " + field + ": expected a piece of tokenizer.model, got \"" +
                  *name.piece + "\"");
    }
    return id;
  }

  const std::string bytes_;
  const SentencePieceTraits traits_;
  sentencepiece::SentencePieceProcessor processor_;
  std::optional<std::int32_t> bos_, eos_, pad_;
  bool can_cut_ = false;  // no piece holds the end of one word and the start of the next
};

}  // namespace

std::shared_ptr<const Tokenizer> parse_sentencepiece(const std::string& path, std::string bytes,
                                                     const SpecialNames& names) {
  return std::make_shared<SentencePieceTokenizer>(path, std::move(bytes), names);
}

}  // namespace memlayers::text
