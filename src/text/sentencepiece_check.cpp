// SPDX-License-Identifier: Apache-2.0
// libsentencepiece reads a model's double array without bounds and asserts (ends the process) on
// some lies, so the bytes are read here first, straight from protobuf's wire format.
#include <bit>
#include <cmath>

#include "io/shown.h"
#include "memlayers/error.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

// Field numbers and values of sentencepiece_model.proto.
enum ModelField { kPieces = 1, kTrainer = 2, kNormalizer = 3, kDenormalizer = 5 };
enum PieceField { kPiece = 1, kScore = 2, kType = 3 };
enum TrainerField { kModelType = 3, kWhitespaceAsSuffix = 24, kUnknownSurface = 44 };
enum NormalizerField { kCharsMap = 2, kAddDummyPrefix = 3, kRemoveExtra = 4, kEscape = 5 };
constexpr std::uint64_t kUnigram = 1, kBpe = 2;
constexpr std::uint64_t kNormalType = 1, kUserType = 4, kByteType = 6;
constexpr std::size_t kMaxPieceBytes =
    4096;  // libsentencepiece recurses once a character of a piece

struct WireField {
  std::uint64_t number = 0, value = 0;  // value: of a varint or of a fixed width
  std::string_view bytes = {};          // of a length-delimited field
  bool is_bytes = false;
};

// Walks the fields of one message.
class WireReader {
 public:
  WireReader(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  bool next(WireField& field) {
    if (bytes_.empty()) return false;
    const std::uint64_t tag = varint();
    field = {.number = tag >> 3};
    switch (tag & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed<std::uint64_t>();
        break;
      case 2: {
        const std::uint64_t size = varint();
        if (size > bytes_.size()) fail("a field that goes past the end");
        field.bytes = bytes_.substr(0, size);
        field.is_bytes = true;
        bytes_.remove_prefix(size);
        break;
      }
      case 5:
        field.value = fixed<std::uint32_t>();
        break;
      default:
        fail("wire type " + std::to_string(tag & 7));
    }
    if (field.number == 0 || field.number > 0x1FFFFFFF) fail("an impossible field number");
    return true;
  }

  [[noreturn]] void fail(const std::string& found) const {
    throw Error(path_ + ": expected a SentencePiece model, got " + found);
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (bytes_.empty()) fail("bytes that end within a number");
      const auto byte = static_cast<std::uint8_t>(bytes_.front());
      bytes_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number of more than ten bytes");
  }

  template <typename T>
  T fixed() {
    T value;
    if (bytes_.size() < sizeof value) fail("bytes that end within a number");
    bytes_.copy(reinterpret_cast<char*>(&value), sizeof value);
    bytes_.remove_prefix(sizeof value);
    return value;
  }

  std::string_view bytes_;
  const std::string& path_;
};

struct Piece {
  std::string_view text;
  float score = 0;
  std::uint64_t type = kNormalType;
};

Piece read_piece(std::string_view message, const std::string& path) {
  Piece piece;
  WireReader reader(message, path);
  for (WireField field; reader.next(field);) {
    if (field.number == kPiece && field.is_bytes) piece.text = field.bytes;
    if (field.number == kScore && !field.is_bytes) {
      piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field.value));
    }
    if (field.number == kType && !field.is_bytes) piece.type = field.value;
  }
  return piece;
}

void check_piece(const WireReader& model, std::string_view message, const std::string& path,
                 std::size_t index, SentencePieceTraits& traits) {
  const std::string name = "pieces[" + std::to_string(index) + "]";
  const auto [piece, score, type] = read_piece(message, path);
  if (piece.empty()) model.fail(name + " without text");
  if (piece.size() > kMaxPieceBytes) {
    model.fail(name + " of " + std::to_string(piece.size()) + " bytes");
  }
  check_utf8(piece, path + ": " + name);
  if (piece.find('\0') != std::string_view::npos) model.fail(name + " with a zero byte");
  if (type < kNormalType || type > kByteType) {
    model.fail(name + " of type " + std::to_string(type));
  }
  if (!std::isfinite(score)) model.fail(name + " with a score that is not finite");
  if (type == kByteType) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    const bool named = piece.size() == 6 && piece.starts_with("<0x") && piece.back() == '>' &&
                       kHex.find(piece[3]) != std::string_view::npos &&
                       kHex.find(piece[4]) != std::string_view::npos;
    if (!named) model.fail(name + " of type byte named " + io::quote(piece));
  }
  if (type == kUserType) traits.verbatim.emplace_back(piece);
}

void read_chars_map(const WireReader& model, std::string_view map, SentencePieceTraits& traits) {
  if (map.empty()) return;
  traits.chars_map =
      CharsMap(map, [&](const std::string& what) { model.fail("a precompiled_charsmap " + what); });
}

void read_trainer(const WireReader& model, WireReader trainer, SentencePieceTraits& traits) {
  for (WireField field; trainer.next(field);) {
    if (field.number == kModelType && field.value != kUnigram && field.value != kBpe) {
      model.fail("trainer_spec.model_type " + std::to_string(field.value) +
                 " (1, unigram, and 2, BPE, are supported)");
    }
    if (field.number == kModelType) traits.is_bpe = field.value == kBpe;
    if (field.number == kWhitespaceAsSuffix && field.value != 0) {
      model.fail("trainer_spec.treat_whitespace_as_suffix true (false is supported)");
    }
    if (field.number == kUnknownSurface && field.is_bytes) traits.unknown_surface = field.bytes;
  }
}

void read_normalizer(const WireReader& model, WireReader normalizer, SentencePieceTraits& traits) {
  for (WireField field; normalizer.next(field);) {
    if (field.number == kCharsMap && field.is_bytes) {
      read_chars_map(model, field.bytes, traits);
    }
    if (field.number == kAddDummyPrefix) traits.add_dummy_prefix = field.value != 0;
    if (field.number == kRemoveExtra) traits.remove_extra_whitespaces = field.value != 0;
    if (field.number == kEscape && field.value == 0) {
      model.fail("normalizer_spec.escape_whitespaces false (true is supported)");
    }
  }
}

}  // namespace

SentencePieceTraits check_sentencepiece(const std::string& path, const std::string& bytes) {
  SentencePieceTraits traits;
  WireReader model(bytes, path);
  std::size_t pieces = 0;
  for (WireField field; model.next(field);) {
    if (field.number <= kDenormalizer && !field.is_bytes) {
      model.fail("field " + std::to_string(field.number) + " that is not a message");
    }
    if (field.number == kPieces) check_piece(model, field.bytes, path, pieces++, traits);
    if (field.number == kTrainer) read_trainer(model, {field.bytes, path}, traits);
    if (field.number == kNormalizer) read_normalizer(model, {field.bytes, path}, traits);
    if (field.number == kDenormalizer) {
      SentencePieceTraits denormalizer;
      read_normalizer(model, {field.bytes, path}, denormalizer);
      if (!denormalizer.chars_map.is_empty()) {
        model.fail("a denormalizer_spec with rules (none is supported)");
      }
    }
  }
  if (pieces == 0) model.fail(std::to_string(bytes.size()) + " bytes without pieces");
  check_utf8(traits.unknown_surface, path + ": trainer_spec.unk_surface");
  if (!traits.add_dummy_prefix && traits.remove_extra_whitespaces) {
    model.fail(
        "normalizer_spec with remove_extra_whitespaces and without add_dummy_prefix, which cannot "
        "encode a text behind another");
  }
  return traits;
}

std::vector<ScoredPiece> scored_pieces(const std::string& path, const std::string& bytes) {
  std::vector<ScoredPiece> pieces;
  WireReader model(bytes, path);
  for (WireField field; model.next(field);) {
    if (field.number != kPieces) continue;
    const Piece piece = read_piece(field.bytes, path);
    pieces.push_back({std::string(piece.text), piece.score, static_cast<std::int32_t>(piece.type)});
  }
  return pieces;
}

}  // namespace memlayers::text
