// SPDX-License-Identifier: Apache-2.0
#include "support/failing_file_system.h"

#include <filesystem>
#include <utility>

#include "memlayers/error.h"

namespace memlayers::testing {
namespace {

bool is_below(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder + "/");
}

void move_names(std::set<std::string>& names, const std::string& from, const std::string& to) {
  std::set<std::string> moved;
  for (const std::string& name : names) {
    moved.insert(is_below(name, from) ? to + name.substr(from.size()) : name);
  }
  names = std::move(moved);
}

}  // namespace

class FailingFileSystem::FailingFile : public io::File {
 public:
  FailingFile(FailingFileSystem& files, std::string path, std::unique_ptr<io::File> file)
      : files_(files), path_(std::move(path)), file_(std::move(file)) {
    ++files_.open_files_;
  }
  ~FailingFile() override { --files_.open_files_; }
  FailingFile(const FailingFile&) = delete;
  FailingFile& operator=(const FailingFile&) = delete;

  void pread(std::span<std::byte> out, std::uint64_t offset) const override {
    file_->pread(out, offset);
  }
  void pwrite(std::span<const std::byte> data, std::uint64_t offset) override {
    const bool was_stopped = files_.is_stopped_;
    if (!files_.is_due()) {
      files_.unsynced_files_.insert(path_);
      file_->pwrite(data, offset);
      return;
    }
    const Failure failure = files_.failure_;
    if (!was_stopped && (failure == Failure::kDiskFull || failure == Failure::kTorn)) {
      file_->pwrite(data.first(data.size() / 2), offset);
    }
    files_.fail(path_);
  }
  void sync() override {
    files_.change(path_);
    file_->sync();
    files_.unsynced_files_.erase(path_);
  }
  std::uint64_t size() const override { return file_->size(); }

 private:
  FailingFileSystem& files_;
  std::string path_;
  std::unique_ptr<io::File> file_;
};

std::unique_ptr<io::File> FailingFileSystem::open(const std::string& path, io::OpenMode mode) {
  if (mode == io::OpenMode::kCreate) change(path);
  auto file = io::posix().open(path, mode);
  if (mode == io::OpenMode::kCreate) unsynced_names_.insert(path);
  return std::make_unique<FailingFile>(*this, path, std::move(file));
}

void FailingFileSystem::rename(const std::string& from, const std::string& to) {
  change(to);
  io::posix().rename(from, to);
  unsynced_names_.erase(from);  // the old name's loss shows in the new one's, which may be lost too
  move_names(unsynced_names_, from, to);
  move_names(unsynced_files_, from, to);
}

void FailingFileSystem::unlink(const std::string& path) {
  change(path, false);
  io::posix().unlink(path);
  unsynced_names_.erase(path);
  unsynced_files_.erase(path);
}

void FailingFileSystem::remove_folder(const std::string& path) {
  change(path, false);
  io::posix().remove_folder(path);
  unsynced_names_.erase(path);
}

void FailingFileSystem::make_folder(const std::string& path) {
  change(path);
  io::posix().make_folder(path);
  unsynced_names_.insert(path);
}

void FailingFileSystem::sync_folder(const std::string& path) {
  change(path);
  io::posix().sync_folder(path);
  std::erase_if(unsynced_names_, [&](const std::string& name) { return io::parent(name) == path; });
}

bool FailingFileSystem::is_due() {
  ++calls_;
  if (is_stopped_) return true;
  if (fail_at_ == kNever || calls_ < fail_at_) return false;
  if (failure_ == Failure::kIoError) return calls_ == fail_at_;
  if (failure_ != Failure::kDiskFull) stop();
  return true;
}

void FailingFileSystem::change(const std::string& path, bool takes_room) {
  if (is_due() && (takes_room || failure_ != Failure::kDiskFull)) fail(path);
}

void FailingFileSystem::stop() {
  is_stopped_ = true;
  for (const std::string& path : unsynced_files_) {
    if (!std::filesystem::exists(path)) continue;
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  }
  for (const std::string& path : unsynced_names_) std::filesystem::remove_all(path);
}

void FailingFileSystem::fail(const std::string& path) const {
  if (is_stopped_) throw Error(path + ": the machine stopped");
  throw Error(path + (failure_ == Failure::kDiskFull ? ": cannot write: disk full"
                                                     : ": cannot write: Input/output error"));
}

}  // namespace memlayers::testing
