// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "io/file_system.h"
#include "memlayers/error.h"

namespace memlayers::testing {

// The real file system, except that its n-th call that changes something, and every later one that
// adds data, fails as on a full disk. Removing still works, as it does there.
class FailingFiles : public io::FileSystem {
 public:
  explicit FailingFiles(int calls_until_full) : left_(calls_until_full) {}
  int calls() const { return calls_; }

  std::unique_ptr<io::File> open(const std::string& path, io::OpenMode mode) override {
    if (mode == io::OpenMode::kCreate) change(path);
    return std::make_unique<FullFile>(*this, path, io::posix().open(path, mode));
  }
  std::unique_ptr<io::Mapping> map(const std::string& path) override {
    return io::posix().map(path);
  }
  void rename(const std::string& from, const std::string& to) override {
    change(from);
    io::posix().rename(from, to);
  }
  void unlink(const std::string& path) override { io::posix().unlink(path); }
  void remove_folder(const std::string& path) override { io::posix().remove_folder(path); }
  void make_folder(const std::string& path) override {
    change(path);
    io::posix().make_folder(path);
  }
  void sync_folder(const std::string& path) override {
    change(path);
    io::posix().sync_folder(path);
  }
  std::vector<std::string> list(const std::string& folder) override {
    return io::posix().list(folder);
  }
  bool exists(const std::string& path) override { return io::posix().exists(path); }
  bool is_folder(const std::string& path) override { return io::posix().is_folder(path); }
  bool is_link(const std::string& path) override { return io::posix().is_link(path); }

 private:
  class FullFile : public io::File {
   public:
    FullFile(FailingFiles& files, std::string path, std::unique_ptr<io::File> file)
        : files_(files), path_(std::move(path)), file_(std::move(file)) {}
    void pread(std::span<std::byte> out, std::uint64_t offset) const override {
      file_->pread(out, offset);
    }
    void pwrite(std::span<const std::byte> data, std::uint64_t offset) override {
      if (files_.left_ <= 1 && !data.empty()) {  // a full disk takes a part
        file_->pwrite(data.first(data.size() / 2), offset);
      }
      files_.change(path_);
      file_->pwrite(data, offset);
    }
    void sync() override {
      files_.change(path_);
      file_->sync();
    }
    std::uint64_t size() const override { return file_->size(); }

   private:
    FailingFiles& files_;
    std::string path_;
    std::unique_ptr<io::File> file_;
  };

  void change(const std::string& path) {
    ++calls_;
    if (--left_ <= 0) throw Error(path + ": cannot write: no space left on device");
  }

  int left_, calls_ = 0;
};

}  // namespace memlayers::testing
