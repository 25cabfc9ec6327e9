// SPDX-License-Identifier: Apache-2.0
// Writes what the fuzz targets start from, by the writers of the library: make_corpus FOLDER makes
// FOLDER/<target>/<name>. Run again when a format changes.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "fuzz/edited_pool.h"
#include "io/safetensors.h"
#include "memlayers/subjects.h"
#include "memlayers/tokenizer.h"
#include "pool/log.h"
#include "pool/overlay.h"
#include "pool/patch.h"
#include "pool/row_format.h"
#include "pool/state.h"
#include "support/tiny_gguf.h"

namespace {

using namespace memlayers;

std::filesystem::path root;

void seed(const std::string& target, const std::string& name, const std::string& bytes) {
  std::filesystem::create_directories(root / target);
  std::ofstream(root / target / name, std::ios::binary) << bytes;
}

std::string sealed(const std::vector<pool::Record>& records) {
  std::string bytes(1, '\1');
  for (const pool::Record& record : records) {
    bytes += static_cast<char>(record.type);
    bytes += static_cast<char>(record.payload.size() % 256);
    bytes += static_cast<char>(record.payload.size() / 256);
    bytes += record.payload;
  }
  return bytes;
}

void seed_safetensors(testing::MemoryFileSystem& fs) {
  const std::vector<float> numbers{1, 2, 3, 4, 5, 6};
  const auto bytes = std::as_bytes(std::span(numbers));
  io::write_safetensors(fs, "two",
                        {{"a", io::ElementType::kF32, {2, 2}, bytes.first(16)},
                         {"b\\u", io::ElementType::kU8, {8}, bytes.last(8)}},
                        {{"format", "pt"}});
  io::write_safetensors(fs, "empty",
                        {{"none", io::ElementType::kI64, {0, 3}, {}},
                         {"scalar", io::ElementType::kF32, {}, bytes.first(4)}});
  for (const char* name : {"two", "empty"}) seed("safetensors", name, io::read_text(fs, name));
}

void seed_gguf() {
  testing::TinyGguf model;
  testing::GgufBytes file;
  model.keys(file);
  testing::add_byte_tokenizer(file, "llama-bpe");
  file.text("tokenizer.chat_template", "{{ messages }}");
  model.tensors(file);
  file.floats("rope_freqs.weight", {2}, {1, 8});
  seed("gguf", "llama", file.bytes());

  model = {.architecture = "qwen2", .vocab_size = 264, .has_head = true, .has_biases = true};
  file = {};
  model.keys(file);
  testing::add_scored_tokenizer(file);
  file.number("general.alignment", 8);
  file.alignment = 8;
  model.tensors(file);
  seed("gguf", "qwen2", file.bytes());

  file = {};
  const std::vector<std::pair<std::uint32_t, std::uint64_t>> types{
      {1, 2},    {2, 18},   {3, 20},   {6, 22},   {7, 24},  {8, 34},   {10, 84},
      {11, 110}, {12, 144}, {13, 176}, {14, 210}, {20, 18}, {23, 136}, {30, 2}};
  for (const auto& [type, bytes] : types) {
    const std::uint64_t numbers = bytes < 10 ? 1 : bytes < 40 ? 32 : 256;
    file.tensor("t" + std::to_string(type), {numbers}, type, std::string(bytes, '\x3c'));
  }
  seed("gguf", "types", file.bytes());
}

void seed_patches(testing::MemoryFileSystem& fs) {
  Patch patch = fuzz::kSmall.patch(4, {1, 17, 39}, {5});
  patch.notes = {{"what", "one"}};
  pool::write_patch(fs, "rows", patch);
  pool::write_patch(fs, "erases", fuzz::kSmall.patch(5, {}, {0, 39}));
  patch = {.id = "q", .pool = testing::kPoolId, .width = 33, .row_dtype = RowType::kInt4};
  patch.slots = {2};
  patch.rows.resize(static_cast<std::size_t>(pool::row_format(RowType::kInt4, 33).bytes()));
  pool::write_patch(fs, "int4", patch);
  pool::write_patch(
      fs, "sub_keys",
      testing::with_sub_keys(fuzz::kSmall.patch(6, {3}), 6, {{1, 0, 0, 2}, {3, 1, 1, 0}}));
  patch = fuzz::kSmall.patch(7, {2});
  patch.subjects = {.frame = {3}, .subjects = {{.grams = {1, 5}, .slots = {2, 300}}}};
  pool::write_patch(fs, "subjects", patch);
  for (const char* name : {"rows", "erases", "int4", "sub_keys", "subjects"})
    seed("patch", name, io::read_text(fs, name));
}

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void seed_subjects() {
  const SubjectRegistry registry{
      .frame = {3, 8}, .subjects = {{.grams = {1, 5}, .slots = {0, 7, 300}}, {.grams = {9}}}};
  const std::string bytes = text_of(to_bytes(registry));
  seed("subjects", "whole", '\0' + bytes);
  seed("subjects", "sealed", '\1' + bytes.substr(8, bytes.size() - 16));
}

void seed_store(testing::MemoryFileSystem& fs) {
  seed("current", "log-1", io::read_text(fs, "pool/CURRENT"));
  for (const std::string& path : fs.files()) {
    const std::string name = path.substr(path.rfind('/') + 1);
    if (name.starts_with("chunk-")) seed("chunk", name, '\0' + io::read_text(fs, path));
    if (name.starts_with("seg-")) {
      seed("chunk", "segment", '\1' + io::read_text(fs, path));
      seed("chunk", "segment_in_memory", '\3' + io::read_text(fs, path));
    }
  }
  seed("log", "whole", '\0' + io::read_text(fs, "pool/log-1"));
  pool::LogCursor log(std::shared_ptr(fs.open("pool/log-1", io::OpenMode::kRead)), "log-1");
  std::vector<pool::Record> all;
  while (const auto group = log.next_group()) all.insert(all.end(), group->begin(), group->end());
  seed("log", "all_records", sealed(all));
  const std::vector<std::pair<const char*, std::vector<pool::Record>>> more{
      {"reapply", {{pool::RecordType::kReapply, 0, pool::id_payload("p1")}}},
      {"grow",
       {{pool::RecordType::kGrow, 0,
         pool::grow_payload(41, {{"chunk-3-1.safetensors", 40, 1, "0"}})}}},
      {"swap",
       {{pool::RecordType::kSwap, 0, pool::swap_payload({"chunk-0-1.safetensors", 0, 16, "0"})}}},
      {"fold", {{pool::RecordType::kFold, 0, pool::fold_payload({"p2"}, nullptr)}}}};
  for (const auto& [name, records] : more) {
    std::vector<pool::Record> whole = all;
    whole.insert(whole.end(), records.begin(), records.end());
    seed("log", name, sealed(whole));
  }
}

void seed_tokenizers() {
  constexpr const char* kByteLevel = R"json({
"added_tokens": [{"id": 5, "content": "<s>", "special": true},
                 {"id": 6, "content": "<x>", "special": false, "lstrip": true, "normalized": true}],
"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"},
  {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
  {"type": "Split", "pattern": {"Regex": "'(?i:ll)|\\p{L}+|\\s+(?!\\S)"},
    "behavior" : "Isolated"
},
  {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}]
}
, "post_processor" : {
  "type" : "TemplateProcessing",
  "single" : [ {"SpecialToken" : {"id" : "<s>"}}, {"Sequence" : {"id" : "A"}} ],
  "special_tokens" : {"<s>" : {"ids" : [5]}}
},
                     "decoder" : {"type" : "ByteLevel"},
                                 "model" : {
  "type" : "BPE", "vocab" : {"a" : 0, "l" : 1, "Ġ" : 2, "ll" : 3, "Ã" : 4}, "merges" : ["l l"]
}
})json";
  constexpr const char* kUnigram = R"json({
"normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"},
  {"type": "Strip", "strip_left": true, "strip_right": false}]},
"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"},
"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
  {"type": "Strip", "content": " ", "start": 1, "stop": 1}]},
"model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true,
  "vocab": [["<unk>", 0], ["▁", -1.5], ["lo", -2], ["l", -3], ["<0xC3>", -9], ["<0xA9>", -9]]}})json";
  constexpr const char* kBert = R"json({
"normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
  "strip_accents": null, "lowercase": true},
"pre_tokenizer": {"type": "BertPreTokenizer"},
"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
"model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
  "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "hello": 1, "##o": 2, "!": 3, "##ll": 4, "he": 5}}})json";
  seed("tokenizer", "byte_level", kByteLevel);
  seed("tokenizer", "config",
       std::string(kByteLevel) + '\0' + R"json({"bos_token": "<s>", "add_bos_token": false})json");
  seed("tokenizer", "unigram", kUnigram);
  seed("tokenizer", "bert", kBert);
  seed("tokenizer", "sentencepiece",
       train_tokenizer({"some text of words to learn from", "日本 of words"}, 290)->file_bytes());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "make_corpus: expected the folder to write to\n";
    return 2;
  }
  root = argv[1];
  testing::MemoryFileSystem plain;
  seed_safetensors(plain);
  seed_gguf();
  seed_patches(plain);
  testing::MemoryFileSystem edited = fuzz::edited_pool();
  seed_store(edited);
  seed_subjects();
  seed_tokenizers();
  return 0;
}
