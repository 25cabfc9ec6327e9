// SPDX-License-Identifier: Apache-2.0
#include "support/memory_file_system.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::testing {
namespace {

constexpr std::size_t kSector = 512;

// The path after two folders have changed places.
std::string exchanged(const std::string& path, const std::string& one, const std::string& other) {
  for (const auto& [from, to] : {std::pair(one, other), std::pair(other, one)}) {
    if (path == from || path.starts_with(from + "/")) return to + path.substr(from.size());
  }
  return path;
}

}  // namespace

class MemoryFileSystem::MemoryFile : public io::File {
 public:
  MemoryFile(MemoryFileSystem& files, std::string path, std::shared_ptr<Node> node)
      : files_(files), path_(std::move(path)), node_(std::move(node)) {}

  void pread(std::span<std::byte> out, std::uint64_t offset) const override {
    files_.call(Kind::kReads, path_);
    if (offset > node_->memory.size() || out.size() > node_->memory.size() - offset) {
      throw Error(path_ + ": expected " + std::to_string(out.size()) + " bytes at offset " +
                  std::to_string(offset) + ", got the end of the file");
    }
    std::copy_n(node_->memory.begin() + static_cast<std::ptrdiff_t>(offset), out.size(),
                out.begin());
  }
  void pwrite(std::span<const std::byte> data, std::uint64_t offset) override {
    const bool fails = files_.is_due(Kind::kTakesRoom, path_);
    const auto part = fails ? data.first(data.size() / 2) : data;
    if (offset + part.size() > node_->memory.size()) node_->memory.resize(offset + part.size());
    std::ranges::copy(part, node_->memory.begin() + static_cast<std::ptrdiff_t>(offset));
    if (fails) files_.fail(path_);
  }
  void sync() override {
    if (files_.is_due(Kind::kChanges, path_)) {
      node_->is_forgotten = true;
      files_.fail(path_);
    }
    if (!node_->is_forgotten) node_->disk = node_->memory;
  }
  void drop_cache() override {
    if (node_->is_forgotten) node_->memory = node_->disk;
    node_->is_forgotten = false;
  }
  std::uint64_t size() const override { return node_->memory.size(); }

 private:
  MemoryFileSystem& files_;
  std::string path_;
  std::shared_ptr<Node> node_;
};

class MemoryFileSystem::MemoryMapping : public io::Mapping {
 public:
  explicit MemoryMapping(std::shared_ptr<Node> node)
      : node_(std::move(node)), bytes_((node_->memory.size() + 63) / 64) {
    if (!node_->memory.empty()) {
      std::memcpy(bytes_.data(), node_->memory.data(), node_->memory.size());
    }
  }
  std::span<const std::byte> bytes() const override {
    return {reinterpret_cast<const std::byte*>(bytes_.data()), node_->memory.size()};
  }

 private:
  struct alignas(64) Line {
    std::array<std::byte, 64> bytes;
  };
  std::shared_ptr<Node> node_;
  std::vector<Line> bytes_;  // at a multiple of 64 bytes, as a page is
};

class MemoryFileSystem::MemoryLock : public io::Lock {
 public:
  MemoryLock(MemoryFileSystem& files, std::string path) : files_(files), path_(std::move(path)) {
    files_.locked_.insert(path_);
  }
  ~MemoryLock() override { files_.locked_.erase(path_); }
  MemoryLock(const MemoryLock&) = delete;
  MemoryLock& operator=(const MemoryLock&) = delete;

 private:
  MemoryFileSystem& files_;
  std::string path_;
};

void MemoryFileSystem::NameChange::apply(Names& names) const {
  if (is_exchange) {
    Names before;
    before.swap(names);
    for (auto& [path, file] : before) names[exchanged(path, *removed, *added)] = std::move(file);
    return;
  }
  if (removed) names.erase(*removed);
  if (added) names[*added] = node;
}

MemoryFileSystem::MemoryFileSystem(const MemoryFileSystem& other) : folders_(other.folders_) {
  std::map<const Node*, std::shared_ptr<Node>> copies;
  const auto copy = [&](const std::shared_ptr<Node>& node) {
    if (node == nullptr) return node;
    std::shared_ptr<Node>& made = copies[node.get()];
    if (made == nullptr) made = std::make_shared<Node>(*node);
    return made;
  };
  for (const auto& [name, node] : other.names_) names_[name] = copy(node);
  for (const auto& [name, node] : other.disk_names_) disk_names_[name] = copy(node);
  for (const NameChange& change : other.changes_) {
    changes_.push_back({change.removed, change.added, copy(change.node), change.is_exchange});
  }
}

bool MemoryFileSystem::is_due(Kind kind, const std::string& path) {
  if (kind != Kind::kReads && before_change) {
    // What it does to other file systems, or to a copy of this one, is no change of this one's.
    before_change(path);
  }
  ++calls_;
  if (fail_at_ == 0 || calls_ < fail_at_) return false;
  const bool is_first = calls_ == fail_at_;
  if (fault_ == Fault::kOnce && !is_first) return false;
  if (fault_ == Fault::kFromThen && !is_first && kind == Kind::kReads) return false;
  if (fault_ == Fault::kFullDisk && kind != Kind::kTakesRoom) return false;
  has_failed_ = true;
  return true;
}

void MemoryFileSystem::fail(const std::string& path) const {
  throw Error(path +
              (fault_ == Fault::kFullDisk ? ": cannot write: disk full" : ": Input/output error"));
}

void MemoryFileSystem::call(Kind kind, const std::string& path) {
  if (is_due(kind, path)) fail(path);
}

std::unique_ptr<io::File> MemoryFileSystem::open(const std::string& path, io::OpenMode mode) {
  call(mode == io::OpenMode::kCreate ? Kind::kTakesRoom : Kind::kReads, path);
  const auto found = names_.find(path);
  if (mode == io::OpenMode::kCreate) {
    if (found != names_.end()) throw Error(path + ": cannot create: it exists");
    changes_.push_back({std::nullopt, path, std::make_shared<Node>()});
    changes_.back().apply(names_);
    return std::make_unique<MemoryFile>(*this, path, names_[path]);
  }
  if (found == names_.end()) throw io::NotFound(path + ": cannot open: no such file");
  return std::make_unique<MemoryFile>(*this, path, found->second);
}

std::unique_ptr<io::Mapping> MemoryFileSystem::map(const std::string& path) {
  call(Kind::kReads, path);
  const auto found = names_.find(path);
  if (found == names_.end()) throw io::NotFound(path + ": cannot open: no such file");
  return std::make_unique<MemoryMapping>(found->second);
}

std::unique_ptr<io::Lock> MemoryFileSystem::lock(const std::string& path) {
  call(Kind::kReads, path);
  if (locked_.contains(path)) return nullptr;
  return std::make_unique<MemoryLock>(*this, path);
}

void MemoryFileSystem::rename(const std::string& from, const std::string& to) {
  call(Kind::kTakesRoom, to);
  changes_.push_back({from, to, names_.at(from)});
  changes_.back().apply(names_);
}

void MemoryFileSystem::exchange(const std::string& one, const std::string& other) {
  call(Kind::kTakesRoom, other);
  if (!folders_.contains(one) || !folders_.contains(other)) {
    throw io::NotFound(other + ": cannot exchange it: no such folder");
  }
  changes_.push_back({one, other, nullptr, true});
  changes_.back().apply(names_);
  std::set<std::string> folders;
  for (const std::string& folder : folders_) folders.insert(exchanged(folder, one, other));
  folders_ = std::move(folders);
}

void MemoryFileSystem::link(const std::string& from, const std::string& to) {
  call(Kind::kTakesRoom, to);
  if (!names_.contains(from)) throw io::NotFound(to + ": cannot link to it: no such file");
  if (names_.contains(to)) throw Error(to + ": cannot link to it: it exists");
  changes_.push_back({std::nullopt, to, names_[from]});
  changes_.back().apply(names_);
}

void MemoryFileSystem::unlink(const std::string& path) {
  call(Kind::kChanges, path);
  if (!names_.contains(path)) throw io::NotFound(path + ": cannot remove: no such file");
  changes_.push_back({path, std::nullopt, nullptr});
  changes_.back().apply(names_);
}

void MemoryFileSystem::remove_folder(const std::string& path) { folders_.erase(path); }
void MemoryFileSystem::make_folder(const std::string& path) { folders_.insert(path); }

void MemoryFileSystem::sync_folder(const std::string& path) {
  call(Kind::kChanges, path);
  const auto is_here = [&](const NameChange& change) {
    return io::parent(change.added ? *change.added : *change.removed) == path;
  };
  for (const NameChange& change : changes_) {
    if (is_here(change)) change.apply(disk_names_);
  }
  std::erase_if(changes_, is_here);
}

std::vector<std::string> MemoryFileSystem::list(const std::string& folder) {
  call(Kind::kReads, folder);
  std::set<std::string> names;
  const auto add = [&](const std::string& path) {
    if (io::parent(path) == folder) names.insert(path.substr(folder.size() + 1));
  };
  for (const auto& [path, node] : names_) add(path);
  for (const std::string& path : folders_) add(path);
  return {names.begin(), names.end()};
}

bool MemoryFileSystem::exists(const std::string& path) {
  return names_.contains(path) || folders_.contains(path);
}

std::vector<MemoryFileSystem::Loose> MemoryFileSystem::loose() const {
  std::vector<Loose> all;
  for (std::size_t i = 0; i < changes_.size(); ++i) all.push_back({nullptr, std::nullopt, i});
  std::vector<std::shared_ptr<Node>> nodes;  // in an order that is the same each time
  const auto add = [&](const std::shared_ptr<Node>& node) {
    if (node != nullptr && std::ranges::find(nodes, node) == nodes.end()) nodes.push_back(node);
  };
  for (const auto& [name, node] : names_) add(node);
  for (const auto& [name, node] : disk_names_) add(node);
  for (const NameChange& change : changes_) add(change.node);
  for (const std::shared_ptr<Node>& node : nodes) {
    if (node->memory.size() != node->disk.size()) all.push_back({node, std::nullopt});
    Bytes disk = node->disk;
    disk.resize(node->memory.size());
    for (std::size_t at = 0; at < disk.size(); at += kSector) {
      const std::size_t size = std::min(kSector, disk.size() - at);
      if (std::memcmp(disk.data() + at, node->memory.data() + at, size) != 0) {
        all.push_back({node, at / kSector});
      }
    }
  }
  return all;
}

std::unique_ptr<MemoryFileSystem> MemoryFileSystem::after_loss(
    const std::vector<Loose>& loose, const std::vector<bool>& is_kept) const {
  std::map<std::shared_ptr<Node>, Bytes> disks;
  Names names = disk_names_;
  for (std::size_t i = 0; i < loose.size(); ++i) {
    if (loose[i].node != nullptr) disks.emplace(loose[i].node, loose[i].node->disk);
    if (!is_kept[i]) continue;
    if (loose[i].node == nullptr) {
      changes_[loose[i].change].apply(names);
      continue;
    }
    Bytes& disk = disks[loose[i].node];
    const Bytes& memory = loose[i].node->memory;
    if (!loose[i].sector) {
      disk.resize(memory.size());
      continue;
    }
    const std::size_t at = *loose[i].sector * kSector;
    const std::size_t end = std::min(at + kSector, memory.size());
    if (at >= disk.size()) continue;  // the file's new length was lost
    std::copy(memory.begin() + static_cast<std::ptrdiff_t>(at),
              memory.begin() + static_cast<std::ptrdiff_t>(std::min(end, disk.size())),
              disk.begin() + static_cast<std::ptrdiff_t>(at));
  }
  auto left = std::make_unique<MemoryFileSystem>();
  left->folders_ = folders_;
  std::map<std::shared_ptr<Node>, std::shared_ptr<Node>> copies;
  for (const auto& [name, node] : names) {
    std::shared_ptr<Node>& copy = copies[node];
    if (copy == nullptr) {
      copy = std::make_shared<Node>();
      const auto found = disks.find(node);
      copy->memory = copy->disk = found == disks.end() ? node->disk : found->second;
    }
    left->names_[name] = copy;
    // Folders are not lost; those that were removed are there again with the files left in them.
    for (std::string folder = io::parent(name); left->folders_.insert(folder).second;) {
      folder = io::parent(folder);
    }
  }
  left->disk_names_ = left->names_;
  return left;
}

std::int64_t MemoryFileSystem::for_each_power_loss(
    std::int64_t most, const std::function<void(MemoryFileSystem&)>& f) const {
  const std::vector<Loose> all = loose();
  const std::size_t n = all.size();
  std::vector<bool> is_kept(n);
  std::int64_t count = 0;
  const auto try_one = [&] {
    f(*after_loss(all, is_kept));
    ++count;
  };
  if (n < 62 && std::int64_t{1} << n <= most) {
    for (std::int64_t subset = 0; subset < std::int64_t{1} << n; ++subset) {
      for (std::size_t i = 0; i < n; ++i) is_kept[i] = (subset >> i & 1) != 0;
      try_one();
    }
    return count;
  }
  std::mt19937_64 random(n);
  for (std::size_t i = 0; i <= n && count < most / 3; ++i) {  // all that came first
    std::fill(is_kept.begin(), is_kept.end(), false);
    std::fill_n(is_kept.begin(), i, true);
    try_one();
  }
  for (std::size_t i = 0; i < n && count < most * 2 / 3; ++i) {  // all but one
    std::fill(is_kept.begin(), is_kept.end(), true);
    is_kept[n - 1 - i] = false;
    try_one();
  }
  is_kept.assign(n, true);
  try_one();
  while (count < most) {
    for (std::size_t i = 0; i < n; ++i) is_kept[i] = (random() & 1) != 0;
    try_one();
  }
  return count;
}

std::unique_ptr<MemoryFileSystem> MemoryFileSystem::random_power_loss(std::uint64_t seed) const {
  const std::vector<Loose> all = loose();
  std::vector<bool> is_kept(all.size());
  std::mt19937_64 random(seed);
  for (std::size_t i = 0; i < all.size(); ++i) is_kept[i] = (random() & 1) != 0;
  return after_loss(all, is_kept);
}

std::vector<std::string> MemoryFileSystem::files() const {
  std::vector<std::string> paths;
  for (const auto& [path, node] : names_) paths.push_back(path);
  return paths;
}

void MemoryFileSystem::flip_bit(const std::string& path, std::size_t offset, unsigned bit) {
  Node& node = *names_.at(path);
  node.memory[offset] ^= std::byte{1} << bit;
  node.disk = node.memory;
}

void MemoryFileSystem::cut(const std::string& path, std::size_t size) {
  names_.at(path)->memory.resize(size);
  names_.at(path)->disk = names_.at(path)->memory;
}

}  // namespace memlayers::testing
