// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <functional>
#include <initializer_list>
#include <optional>
#include <utility>

#include "io/folder.h"
#include "io/temporary.h"
#include "memlayers/error.h"
#include "text/sources.h"

namespace memlayers::text {
namespace {

constexpr std::int64_t kReportEvery = 1000;  // documents

std::string format_name(DataFormat format) {
  if (format == DataFormat::kJsonl) return "jsonl";
  return format == DataFormat::kLines ? "lines" : "text";
}

std::string names(const std::vector<std::int32_t>& tokens) {
  std::string all;
  for (const std::int32_t token : tokens) all += " " + std::to_string(token);
  return all;
}

// All that decides what the tokens are.
std::string describe(io::FileSystem& fs, const std::vector<Source>& sources,
                     const Tokenizer& tokenizer) {
  std::string key = "memlayers tokens 2; tokenizer";
  for (const auto& [name, bytes] : tokenizer.files()) {
    key += " " + io::xxh3_hex(std::as_bytes(std::span(bytes)));
  }
  key += " before" + names(tokenizer.prefix()) + " behind" + names(tokenizer.end_of_document());
  for (const Source& source : sources) {
    source.with_bytes(fs, [&](std::string_view bytes) {
      key += "; " + format_name(source.format()) + " " + std::to_string(bytes.size()) + " " +
             io::xxh3_hex(std::as_bytes(std::span(bytes)));
    });
  }
  return key;
}

struct Tokens {
  std::vector<std::int32_t> tokens;
  std::vector<std::int64_t> begin = {0}, loss_from;

  void add(const Document& document, const Tokenizer& tokenizer) {
    const std::size_t start = tokens.size();
    const auto append = [&](const std::vector<std::int32_t>& more) {
      tokens.insert(tokens.end(), more.begin(), more.end());
    };
    std::int64_t first_with_loss = 1;  // nothing foretells the first token
    if (document.prompt.empty()) {
      append(tokenizer.encode_prompt(document.answer));
    } else {
      append(tokenizer.encode_prompt(document.prompt));
      first_with_loss = static_cast<std::int64_t>(tokens.size() - start);
      append(tokenizer.encode_continuation(document.answer));
    }
    append(tokenizer.end_of_document());
    if (tokens.size() == start)
      return;  // a tokenizer without special tokens that leaves all of it out
    begin.push_back(static_cast<std::int64_t>(tokens.size()));
    loss_from.push_back(first_with_loss);
  }
};

template <typename T>
io::TensorToWrite tensor(const std::string& name, io::ElementType type,
                         const std::vector<T>& values) {
  return {name, type, {static_cast<std::int64_t>(values.size())}, std::as_bytes(std::span(values))};
}

// Under a name of its own first: another run may be making the same file.
void write(io::FileSystem& fs, const std::string& path, const Tokens& made,
           const std::string& key) {
  std::map<std::string, std::string> metadata = {{"key", key}};
  const std::vector<io::TensorToWrite> tensors = {
      tensor("begin", io::ElementType::kI64, made.begin),  // the wider type first: it stays aligned
      tensor("loss_from", io::ElementType::kI64, made.loss_from),
      tensor("tokens", io::ElementType::kI32, made.tokens)};
  for (const io::TensorToWrite& each : tensors) metadata[each.name] = io::xxh3_hex(each.bytes);
  const io::TemporaryName temporary(fs, path);
  io::write_safetensors(fs, temporary.path(), tensors, metadata);
  try {
    fs.rename(temporary.path(), path);
  } catch (...) {
    temporary.remove();
    throw;
  }
}

template <typename T>
std::span<const T> view(const io::SafetensorsFile& file, const std::string& name,
                        io::ElementType type) {
  const io::TensorView& tensor = file.at(name);
  if (tensor.type != type || tensor.shape.size() != 1 ||
      reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % alignof(T) != 0) {
    throw Error(file.path() + ": " + name + ": expected one dimension of " +
                std::string(io::element_name(type)));
  }
  return {reinterpret_cast<const T*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(T)};
}

// From the first of these bytes to the last.
std::span<const std::byte> around(std::initializer_list<std::span<const std::byte>> parts) {
  const std::byte *begin = nullptr, *end = nullptr;
  for (const auto part : parts) {
    if (part.empty()) continue;
    begin = begin == nullptr ? part.data() : std::min(begin, part.data(), std::less<>());
    end = std::max(end, part.data() + part.size(), std::less<>());
  }
  return {begin, end};
}

}  // namespace

TokenCache::TokenCache(io::SafetensorsFile file)
    : file_(std::move(file)),
      tokens_(view<std::int32_t>(file_, "tokens", io::ElementType::kI32)),
      begin_(view<std::int64_t>(file_, "begin", io::ElementType::kI64)),
      loss_from_(view<std::int64_t>(file_, "loss_from", io::ElementType::kI64)),
      watched_(around({std::as_bytes(tokens_), std::as_bytes(begin_), std::as_bytes(loss_from_)})) {
}

// What a file of this name holds was once written by write(), so checksums tell whether it still
// does; the bounds are checked all the same, for the spans of documents rest on them.
void TokenCache::check(const std::string& key) const {
  const auto expect = [&](bool holds, const std::string& what) {
    if (!holds) throw Error(file_.path() + ": expected " + what);
  };
  const auto has = [&](const std::string& name, const std::string& value) {
    const auto found = file_.metadata().find(name);
    return found != file_.metadata().end() && found->second == value;
  };
  expect(has("key", key), "the tokens of these sources");
  for (const char* name : {"begin", "loss_from", "tokens"}) {
    expect(has(name, io::xxh3_hex(file_.at(name).bytes)), std::string(name) + " as written");
  }
  expect(!loss_from_.empty() && begin_.size() == loss_from_.size() + 1,
         "a begin for each document");
  expect(begin_.front() == 0 && begin_.back() == tokens(), "documents to cover all tokens");
  for (std::size_t i = 0; i < loss_from_.size(); ++i) {
    expect(begin_[i] < begin_[i + 1] && begin_[i + 1] <= tokens(), "documents in order");
    expect(loss_from_[i] >= 0, "loss_from of at least 0");
  }
  check_read();
}

std::optional<TokenCache> TokenCache::open(io::FileSystem& fs, const std::string& path,
                                           const std::string& key) {
  if (!fs.exists(path)) return std::nullopt;
  try {
    TokenCache cache(io::SafetensorsFile::open(fs, path));
    cache.check(key);
    return cache;
  } catch (const Error&) {
    return std::nullopt;  // damaged: made again
  }
}

TokenCache TokenCache::open_or_build(
    io::FileSystem& fs, const std::string& cache_folder, const std::vector<std::string>& paths,
    DataFormat format, const Tokenizer& tokenizer,
    const std::function<void(std::int64_t, std::int64_t)>& report) {
  const std::vector<Source> sources = find_sources(fs, paths, format);
  const std::string key = describe(fs, sources, tokenizer);
  const std::string path = io::join(
      cache_folder, "tokens-" + io::xxh3_hex(std::as_bytes(std::span(key))) + ".safetensors");
  if (auto cache = open(fs, path, key)) return std::move(*cache);

  Tokens made;
  const auto tell = [&] {
    if (report) {
      report(static_cast<std::int64_t>(made.loss_from.size()),
             static_cast<std::int64_t>(made.tokens.size()));
    }
  };
  read_documents(fs, sources, [&](const Document& document) {
    made.add(document, tokenizer);
    if (made.loss_from.size() % kReportEvery == 0) tell();
  });
  if (made.tokens.empty()) throw Error("data: expected at least one token, got none");
  tell();
  io::make_folders(fs, cache_folder);
  write(fs, path, made, key);
  auto cache = open(fs, path, key);
  if (!cache) throw Error(path + ": expected the tokens just written, got a file that was altered");
  return std::move(*cache);
}

std::int64_t TokenCache::documents() const { return static_cast<std::int64_t>(loss_from_.size()); }

std::int64_t TokenCache::tokens() const { return static_cast<std::int64_t>(tokens_.size()); }

std::span<const std::int32_t> TokenCache::document(std::int64_t index) const {
  const auto i = static_cast<std::size_t>(index);
  const std::int64_t begin = begin_[i], end = begin_[i + 1];
  check_read();  // else these may not be what the file says
  return tokens_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
}

std::int64_t TokenCache::loss_from(std::int64_t index) const {
  return loss_from_[static_cast<std::size_t>(index)];
}

}  // namespace memlayers::text
