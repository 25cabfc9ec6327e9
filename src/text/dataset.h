// SPDX-License-Identifier: Apache-2.0
// From files of text to batches of tokens. Torch-free. The tokens live in one mapped cache file (a
// safetensors file: `tokens` I32 [n], `begin` I64 [documents + 1], `loss_from` I64 [documents]),
// named by a hash of what it was made from, so that a second run starts at once and a changed file
// is read anew.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/mapped_read.h"
#include "io/safetensors.h"
#include "memlayers/config.h"
#include "memlayers/tokenizer.h"

namespace memlayers::text {

// A document as read: `prompt` empty for plain text. Loss is on `answer` only where there is a
// prompt.
struct Document {
  std::string prompt, answer;
  std::string place = {};  // "data.jsonl:7", or the file alone where it is one document
  std::vector<std::string> paraphrases = {};  // other prompts for the same answer: not trained on
};

// Calls `each` for every document of the files, folders (all files in them, by name; not those in
// folders below, nor those whose name begins with a dot) or streams ("-" is standard input; see
// io::stream_of). Throws Error naming file, line and what was wanted: not UTF-8, not JSON, a
// missing field, no document at all.
//
// kAuto goes by the file's name (a stream is text). Lines end with "\n" or "\r\n"; empty
// lines, empty texts and a byte order mark are passed over. A JSON object with "text" is plain
// text, whatever else it has; an empty "prompt" is plain text too.
void read_documents(io::FileSystem& fs, const std::vector<std::string>& paths, DataFormat format,
                    const std::function<void(const Document&)>& each);

// The first few of these paths, for a message; "data" where there are none.
std::string listed(const std::vector<std::string>& paths);

// Tokenized documents, each with its special tokens (Tokenizer::encode_document()).
// The loss starts at token loss_from of a document: 1 for plain text, the first answer token behind
// a prompt.
class TokenCache {
 public:
  // Opens the cache of these sources, or makes it (progress is told to `report(documents, tokens)`
  // at times). Standard input is read once and cached by content.
  static TokenCache open_or_build(
      io::FileSystem& fs, const std::string& cache_folder, const std::vector<std::string>& paths,
      DataFormat format, const Tokenizer& tokenizer,
      const std::function<void(std::int64_t, std::int64_t)>& report = {});

  std::int64_t documents() const;
  std::int64_t tokens() const;
  std::span<const std::int32_t> document(std::int64_t index) const;
  std::int64_t loss_from(std::int64_t index) const;
  // The cache is a mapped file: throws Error where a part of it could not be read, and what was
  // read since it was opened is of no use. document() does so where the part says what it gives.
  void check_read() const { watched_.check(); }

 private:
  explicit TokenCache(io::SafetensorsFile file);
  static std::optional<TokenCache> open(io::FileSystem& fs, const std::string& path,
                                        const std::string& key);
  void check(const std::string& key) const;
  io::SafetensorsFile file_;
  std::span<const std::int32_t> tokens_;
  std::span<const std::int64_t> begin_, loss_from_;
  io::WatchedBytes watched_;
};

inline constexpr std::int64_t kIgnored = -100;

// rows x length token ids, row-major, padded at the right; target[t] is the token to predict at t,
// or kIgnored (-100: same number as kIgnoredTarget) where there is no loss.
struct Batch {
  std::int64_t rows = 0, length = 0;
  std::vector<std::int64_t> input, target;
  // As `input`: the column in which the document of a token begins in its row, 0 for the rest of
  // one that began in another row. Empty: rows hold one document each, or are read as one.
  std::vector<std::int64_t> document_begin = {};
  std::int64_t tokens = 0;         // of `input`, without padding
  std::int64_t target_tokens = 0;  // with a loss; may be 0 (a piece of a long prompt)
};

struct BatchOptions {
  std::int64_t batch_tokens = 4096;  // rows * length, at most (at least one row)
  std::int64_t context = 512;        // tokens of a sequence, at most; longer documents are cut into
                                     // pieces when packed, and shortened at the end when not
  bool pack = true;
  bool across_documents = false;  // packed rows are read as one text: no document_begin
  bool shuffle = true;
  std::uint64_t seed = 0;
  std::int64_t pad_token = 0;
};

// Endless batches in a deterministic order: each epoch a new permutation of the documents from
// (seed, epoch), the same on every machine. Packed: documents follow each other in rows of
// `context` tokens (the last row may be shorter), rows shuffled again; the last token of a document
// has no target. Not packed: one document a row, rows of like length together (sorted inside
// windows of the shuffled order, batches shuffled again), so that little is padding. Position is
// (epoch, batch): seek() returns to it exactly, and throws Error for one that is not there. Every
// document comes once an epoch.
class BatchStream {
 public:
  struct Position {
    std::int64_t epoch = 0, batch = 0;
  };
  BatchStream(std::shared_ptr<const TokenCache> cache, const BatchOptions& options);
  Batch next();
  Position position() const { return position_; }  // of the batch that next() gives
  void seek(Position position);
  std::int64_t batches_in_epoch(std::int64_t epoch);

 private:
  struct Plan;
  void plan_epoch(std::int64_t epoch);
  void plan_packed(Plan& plan) const;
  void plan_rows(Plan& plan) const;
  Batch packed_batch(std::int64_t first, std::int64_t last) const;
  Batch row_batch(std::int64_t first, std::int64_t last) const;

  std::shared_ptr<const TokenCache> cache_;
  BatchOptions options_;
  Position position_;
  std::shared_ptr<const Plan> plan_;  // of the epoch last asked for
};

}  // namespace memlayers::text
