// SPDX-License-Identifier: Apache-2.0
// Hugging Face's tokenizer.json: added tokens are found, the text between them is normalized and
// cut into words, and a model gives the tokens of each. What would not be exact is refused when the
// file is read.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/json.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "text/added_vocabulary.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/token_model.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace memlayers::text {
namespace {

constexpr const char* kFileName = "tokenizer.json";
// What a normalizer may make of a text: no real one makes more than 20 bytes of one.
constexpr std::size_t kMostGrowth = 64, kMostBytes = 1 << 20;

class JsonTokenizer : public Tokenizer {
 public:
  JsonTokenizer(std::string bytes, const JsonField& root, const TokenizerSettings& settings,
                TokenizerFiles beside)
      : files_(std::move(beside)),
        model_(read_token_model(root.at("model"))),
        decoder_(root.find("decoder")) {
    files_.insert(files_.begin(), {kFileName, std::move(bytes)});
    if (const auto field = root.find("normalizer")) normalizer_ = Normalizer(*field);
    if (const auto field = root.find("pre_tokenizer")) pre_tokenizer_ = PreTokenizer(*field);
    if (const auto field = root.find("added_tokens")) read_added_tokens(*field);
    if (const auto field = root.find("post_processor")) {
      frame_ = read_post_processor(*field, [&](const std::string& token) { return find(token); });
    }
    apply(settings);
    added_.build(kFileName, [&](std::string_view content) {
      return normalizer_(content, true, most_bytes(content));
    });
    vocab_size_ = vocabulary().id_end();
    for (const AddedToken& token : added_.tokens()) {
      vocab_size_ = std::max(vocab_size_, std::int64_t{token.id} + 1);
    }
  }

  std::vector<std::int32_t> encode(std::string_view text) const override { return run(text, {}); }
  std::vector<std::int32_t> encode_special(std::string_view text) const override {
    return run(text, {.own = {{0, text.size()}}});
  }
  std::vector<std::int32_t> encode_pieces(std::span<const PromptPiece> pieces) const override {
    std::string text;
    Options options;
    for (const PromptPiece& piece : pieces) {
      const std::size_t begin = text.size();
      text += piece.text;
      if (!piece.is_template || piece.text.empty()) continue;
      if (!options.own.empty() && options.own.back().end == begin) {
        options.own.back().end = text.size();
      } else {
        options.own.push_back({begin, text.size()});
      }
    }
    return run(text, options);
  }
  std::string token(std::int32_t id) const override { return std::string(content_of(id)); }
  std::vector<std::int32_t> encode_continuation(std::string_view text) const override {
    return run(" " + std::string(text), {.takes_prefix = false});
  }
  std::unique_ptr<TextStream> decode_stream() const override {
    return std::make_unique<Stream>(*this);
  }

  const std::vector<std::int32_t>& prefix() const override { return frame_.prefix; }
  const std::vector<std::int32_t>& suffix() const override { return frame_.suffix; }
  std::int64_t vocab_size() const override { return vocab_size_; }
  std::optional<std::int32_t> bos() const override { return bos_; }
  std::optional<std::int32_t> eos() const override { return eos_; }
  std::optional<std::int32_t> pad() const override { return pad_; }
  const TokenizerFiles& files() const override { return files_; }

 private:
  class Stream : public TextStream {
   public:
    explicit Stream(const JsonTokenizer& tokenizer)
        : tokenizer_(tokenizer), run_(tokenizer.decoder_.start()) {}
    std::string push(std::int32_t token) override {
      const std::string_view content = tokenizer_.content_of(token);
      if (content.empty() || tokenizer_.added_.is_special(content)) return "";
      const AddedToken* added = tokenizer_.added_.find(token);
      return run_.push(added != nullptr ? added->decoded : std::string(content));
    }
    std::string finish() override { return run_.finish(); }

   private:
    const JsonTokenizer& tokenizer_;
    TokenDecoder::Run run_;
  };

  const Vocabulary& vocabulary() const { return model_->vocabulary(); }

  // "" for an id that no token has.
  std::string_view content_of(std::int32_t id) const {
    if (id < 0 || id >= vocab_size_) {
      throw Error(std::string(kFileName) + ": expected token ids in [0, " +
                  std::to_string(vocab_size_) + "), got " + std::to_string(id));
    }
    const AddedToken* added = added_.find(id);
    return added != nullptr ? std::string_view(added->content) : vocabulary().token(id);
  }

  std::optional<std::int32_t> find(const std::string& token) const {
    const AddedToken* added = added_.find(token);
    return added != nullptr ? std::optional(added->id) : vocabulary().find(token);
  }

  void read_added_tokens(const JsonField& list) {
    for (const JsonField& field : list.elements()) {
      AddedToken token = read_added_token(field);
      const auto known = find(token.content);
      const AddedToken* other = added_.find(token.id);
      const std::string_view same_id =
          other != nullptr ? std::string_view(other->content) : vocabulary().token(token.id);
      if ((known && *known != token.id) || (!same_id.empty() && same_id != token.content)) {
        field.fail("the id and content of model.vocab, and each once");
      }
      added_.put(std::move(token));
    }
  }

  void apply(const TokenizerSettings& settings) {
    for (const AddedToken& token : settings.added) {
      if (find(token.content) != token.id) {
        throw Error(settings.path + ": added_tokens_decoder[\"" + std::to_string(token.id) +
                    "\"]: expected a token of tokenizer.json under its id, got " +
                    io::quote(token.content));
      }
      added_.put(token);
    }
    for (const std::string& content : settings.special) {
      const auto id = vocabulary().find(content);
      if (id && added_.find(content) == nullptr) {
        added_.put({.content = content, .id = *id, .special = true});
      }
    }
    const auto last_of = [](const std::vector<std::int32_t>& ids) {
      return ids.empty() ? std::nullopt : std::optional(ids.back());
    };
    bos_ = named(settings.bos, last_of(frame_.prefix));
    eos_ = named(settings.eos, frame_.suffix.empty() ? usual_eos() : last_of(frame_.suffix));
    pad_ = named(settings.pad, std::nullopt);
    const bool adds_prefix = normalizer_.adds_prefix() || pre_tokenizer_.adds_prefix();
    if (settings.add_prefix && *settings.add_prefix != adds_prefix) {
      throw Error(settings.path + ": add_prefix_space: expected " +
                  (adds_prefix ? "true" : "false") + ", as in tokenizer.json, got " +
                  (adds_prefix ? "false" : "true"));
    }
    if (settings.cleans_up && !model_->is_bpe()) {
      throw Error(settings.path +
                  ": clean_up_tokenization_spaces: expected false for a model that is not BPE, got "
                  "true");
    }
  }

  std::optional<std::int32_t> named(const TokenizerSettings::Name& name,
                                    std::optional<std::int32_t> otherwise) const {
    if (!name.given) return otherwise;
    if (!name.piece) return std::nullopt;
    const auto found = find(*name.piece);
    if (!found) {
      throw Error(name.field + ": expected a token of tokenizer.json, got " +
                  io::quote(*name.piece));
    }
    return found;
  }

  std::optional<std::int32_t> usual_eos() const {
    for (const char* name : {"</s>", "<|end_of_text|>", "<|endoftext|>"}) {
      const AddedToken* found = added_.find(std::string(name));
      if (found != nullptr && found->special) return found->id;
    }
    return std::nullopt;
  }

  static std::size_t most_bytes(std::string_view text) {
    return kMostGrowth * text.size() + kMostBytes;
  }

  struct Options {
    bool takes_prefix = true;         // whether something may be put before the text
    std::vector<TextRange> own = {};  // where what spells a special token becomes it
  };
  std::vector<std::int32_t> run(std::string_view text, const Options& options) const {
    const bool takes_prefix = options.takes_prefix;
    check_utf8(text, "text to encode");
    std::vector<std::int32_t> tokens;
    WordCache cache;
    // All parts together may grow so much.
    std::size_t room = most_bytes(text);
    for (const TextPart& part : added_.split(text, options.own)) {
      if (part.token) {
        tokens.push_back(*part.token);
        continue;
      }
      const std::string_view raw = text.substr(part.begin, part.end - part.begin);
      const bool is_start = part.begin == 0;
      const std::string normal = normalizer_(raw, takes_prefix || !is_start, room);
      room -= std::min(room, normal.size());
      const auto own =
          normal_ranges(raw, normal, within(options.own, part), takes_prefix || !is_start);
      for (const TextPart& inner : added_.split_normalized(normal, own)) {
        if (inner.token) {
          tokens.push_back(*inner.token);
          continue;
        }
        const bool at_start = is_start && inner.begin == 0;
        pre_tokenizer_.split({std::string_view(normal).substr(inner.begin, inner.end - inner.begin),
                              at_start, takes_prefix || !at_start},
                             [&](std::string_view word) { model_->encode(word, cache, tokens); });
      }
    }
    return tokens;
  }

  // What of ranges of the text lies in a part of it, counted from its beginning.
  static std::vector<TextRange> within(const std::vector<TextRange>& ranges, const TextPart& part) {
    std::vector<TextRange> inside;
    auto range = std::ranges::upper_bound(ranges, part.begin, {}, &TextRange::end);
    for (; range != ranges.end() && range->begin < part.end; ++range) {
      inside.push_back({std::max(range->begin, part.begin) - part.begin,
                        std::min(range->end, part.end) - part.begin});
    }
    return inside;
  }

  // Where ranges of a part lie in what the normalizer makes of it. Only special tokens that are
  // looked for there ask for it. Throws Error where the normalizer joins what they part.
  std::vector<TextRange> normal_ranges(std::string_view raw, const std::string& normal,
                                       const std::vector<TextRange>& ranges,
                                       bool takes_prefix) const {
    if (ranges.empty() || !added_.has_normalized_special()) return {};
    std::vector<TextRange> found;
    std::string joined;
    std::size_t done = 0;
    const auto add = [&](std::size_t end) {
      if (done == end) return;
      joined +=
          normalizer_(raw.substr(done, end - done), takes_prefix && done == 0, most_bytes(raw));
      done = end;
    };
    for (const TextRange& range : ranges) {
      add(range.begin);
      const std::size_t begin = joined.size();
      add(range.end);
      found.push_back({begin, joined.size()});
    }
    add(raw.size());
    if (joined == normal) return found;
    throw Error(
        "text to encode: expected a tokenizer whose normalizer leaves apart what a template and "
        "what others wrote, got one that joins them");
  }

  TokenizerFiles files_;
  const std::unique_ptr<const TokenModel> model_;
  const TokenDecoder decoder_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  AddedVocabulary added_;
  Frame frame_;
  std::int64_t vocab_size_ = 0;
  std::optional<std::int32_t> bos_, eos_, pad_;
};

}  // namespace

std::shared_ptr<const Tokenizer> parse_json_tokenizer(const std::string& path, std::string bytes,
                                                      const TokenizerSettings& settings,
                                                      TokenizerFiles beside) {
  const nlohmann::json json = io::parse_json(bytes, path);
  const JsonField root(json, path);
  if (!root.is_object()) root.fail("an object");
  return std::make_shared<JsonTokenizer>(std::move(bytes), root, settings, std::move(beside));
}

}  // namespace memlayers::text
