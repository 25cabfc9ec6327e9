// SPDX-License-Identifier: Apache-2.0
#include "io/folder.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "io/json.h"
#include "io/json_field.h"
#include "io/shown.h"
#include "memlayers/error.h"

namespace memlayers::io {
namespace {

constexpr const char* kManifest = "MANIFEST.json";

std::vector<std::string> all_files(FileSystem& fs, const std::string& folder) {
  std::vector<std::string> names;
  for (const std::string& name : fs.list(folder)) {
    const std::string path = join(folder, name);
    if (fs.is_folder(path)) {
      for (const std::string& inner : all_files(fs, path)) names.push_back(join(name, inner));
    } else {
      names.push_back(name);
    }
  }
  return names;
}

std::string without_slash_at_end(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

std::string hex(std::uint64_t hash) {  // 16 digits
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; hash >>= 4) text[i] = kDigits[hash & 15];
  return text;
}

// Once a pool has been edited its store's log answers for all of pool/, not the manifest: it names
// the files with their lengths and digests, and replaces some (docs/store.md).
bool has_log(FileSystem& fs, const std::string& folder) {
  return fs.exists(join(folder, "pool/CURRENT"));
}
bool is_of_pool(const std::string& name) { return name.starts_with("pool/"); }

bool is_inside(const std::string& name) {  // a name that a manifest may hold
  const std::string slashed = "/" + name + "/";
  return !name.empty() && slashed.find("//") == std::string::npos &&
         slashed.find("/../") == std::string::npos;
}

}  // namespace

std::uint64_t xxh3(std::span<const std::byte> data) {
  return XXH3_64bits(data.data(), data.size());
}

std::string xxh3_hex(std::span<const std::byte> data) { return hex(xxh3(data)); }

std::string xxh3_128_hex(std::span<const std::byte> data) {
  const XXH128_hash_t hash = XXH3_128bits(data.data(), data.size());
  return hex(hash.high64) + hex(hash.low64);
}

// Read piece by piece: a file may be larger than memory.
ManifestEntry entry_of(FileSystem& fs, const std::string& path) {
  const auto file = fs.open(path, OpenMode::kRead);
  const std::uint64_t size = file->size();
  const std::unique_ptr<XXH3_state_t, void (*)(XXH3_state_t*)> state(
      XXH3_createState(), [](XXH3_state_t* s) { XXH3_freeState(s); });
  XXH3_64bits_reset(state.get());
  std::vector<std::byte> buffer(std::min<std::uint64_t>(size, 1 << 20));
  for (std::uint64_t at = 0; at < size;) {
    const auto part = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), size - at));
    file->pread(part, at);
    XXH3_64bits_update(state.get(), part.data(), part.size());
    at += part.size();
  }
  return {size, hex(XXH3_64bits_digest(state.get()))};
}

std::vector<std::string> files_in(FileSystem& fs, const std::string& folder) {
  std::vector<std::string> names = all_files(fs, folder);
  std::erase(names, kManifest);
  return names;
}

FolderWriter::FolderWriter(FileSystem& fs, std::string path, Place place)
    : fs_(fs),
      path_(without_slash_at_end(std::move(path))),
      replaces_(place == Place::kOfAFolder),
      name_(fs, path_, replaces_ ? TemporaryName::Left::kOfAll : TemporaryName::Left::kOfThisNumber,
            replaces_ ? ".next-" : ".tmp-"),
      temporary_(name_.path()) {
  if (!replaces_ && fs_.exists(path_))
    throw Exists(path_ + ": expected no folder of this name, found one");
  make_folders(fs_, parent(temporary_));
  fs_.make_folder(temporary_);
}

FolderWriter::~FolderWriter() {
  if (!committed_) name_.remove();
}

std::string FolderWriter::file(const std::string& name) {
  const std::string path = join(temporary_, name);
  make_folders(fs_, parent(path));
  return path;
}

void FolderWriter::write_text(const std::string& name, std::string_view text) {
  const auto out = fs_.open(file(name), OpenMode::kCreate);
  out->pwrite(std::as_bytes(std::span(text)), 0);
  out->sync();
}

void FolderWriter::add(const std::string& name, ManifestEntry entry) {
  entries_[name] = std::move(entry);
}

void FolderWriter::commit() {
  nlohmann::json files = nlohmann::json::object();
  std::set<std::string> folders;
  const bool was_edited = has_log(fs_, temporary_);
  for (const std::string& name : files_in(fs_, temporary_)) {
    const std::string path = join(temporary_, name);
    for (std::string folder = parent(path); folder != temporary_; folder = parent(folder)) {
      folders.insert(folder);
    }
    if (was_edited && is_of_pool(name)) continue;
    const auto known = entries_.find(name);
    const ManifestEntry entry = known != entries_.end() ? known->second : entry_of(fs_, path);
    files[name] = {{"size", entry.size}, {"xxh3", entry.xxh3}};
  }
  for (const std::string& folder : folders) fs_.sync_folder(folder);
  const nlohmann::json manifest = {
      {"format", "memlayers-manifest"}, {"version", 1}, {"files", files}};
  write_text(kManifest, manifest.dump(1));
  fs_.sync_folder(temporary_);
  if (replaces_) {
    fs_.exchange(temporary_, path_);
  } else {
    fs_.rename_new(temporary_, path_);
  }
  committed_ = true;
  fs_.sync_folder(parent(path_));
  // First the manifest: what is left of a folder must not look whole.
  if (replaces_) name_.remove(kManifest);
}

std::map<std::string, ManifestEntry> read_manifest(FileSystem& fs, const std::string& folder) {
  const std::string path = join(folder, kManifest);
  const nlohmann::json json = parse_json(read_text(fs, path), path);
  const JsonField manifest(json, path);
  const JsonField format = manifest.at("format");
  if (format.string() != "memlayers-manifest") format.fail("\"memlayers-manifest\"");
  manifest.at("version").integer(1, 1);
  std::map<std::string, ManifestEntry> entries;
  for (const auto& [name, entry] : manifest.at("files").members()) {
    if (!is_inside(name)) {
      throw Error(path + ": files: expected names of files inside the folder, got " + quote(name));
    }
    entries[name] = {entry.at("size").bits(), entry.at("xxh3").string()};
  }
  return entries;
}

namespace {

std::map<std::string, ManifestEntry> entries_that_hold(FileSystem& fs, const std::string& folder) {
  std::map<std::string, ManifestEntry> entries = read_manifest(fs, folder);
  if (has_log(fs, folder)) {
    std::erase_if(entries, [](const auto& entry) { return is_of_pool(entry.first); });
  }
  return entries;
}

}  // namespace

bool is_complete(FileSystem& fs, const std::string& folder) {
  try {
    for (const auto& [name, entry] : entries_that_hold(fs, folder)) {
      if (fs.open(join(folder, name), OpenMode::kRead)->size() != entry.size) return false;
    }
  } catch (const Error&) {
    return false;
  }
  return true;
}

void verify_folder(FileSystem& fs, const std::string& folder, Share share) {
  int next = 0;
  for (const auto& [name, entry] : entries_that_hold(fs, folder)) {
    if (next++ % share.of != share.index) continue;
    const std::string path = join(folder, name);
    const ManifestEntry summary = entry_of(fs, path);
    if (summary.size != entry.size) {
      throw Error(path + ": expected " + std::to_string(entry.size) +
                  " bytes by MANIFEST.json, got " + std::to_string(summary.size));
    }
    if (summary.xxh3 != entry.xxh3) {
      throw Error(path + ": expected checksum " + shown(entry.xxh3) + " by MANIFEST.json, got " +
                  summary.xxh3);
    }
  }
}

}  // namespace memlayers::io
