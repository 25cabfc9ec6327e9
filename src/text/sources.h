// SPDX-License-Identifier: Apache-2.0
// The files behind a list of paths, one after the other, so that no two are open at once.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "text/dataset.h"

namespace memlayers::text {

class Source {
 public:
  Source(std::string path, DataFormat format);  // a file; kAuto is resolved by its name
  // Read to its end now. `path`: "-", or another that io::stream_of() knows.
  static Source stream(io::FileSystem& fs, const std::string& path, DataFormat format);
  const std::string& name() const { return name_; }
  DataFormat format() const { return format_; }  // never kAuto
  // Calls `use` with the bytes, which live as long as the call.
  void with_bytes(io::FileSystem& fs, const std::function<void(std::string_view)>& use) const;
  void for_each_document(io::FileSystem& fs,
                         const std::function<void(const Document&)>& each) const;

 private:
  Source() = default;
  std::string name_;
  DataFormat format_ = DataFormat::kText;
  std::shared_ptr<const std::string> content_;  // of a stream, which can be read only once
};

std::vector<Source> find_sources(io::FileSystem& fs, const std::vector<std::string>& paths,
                                 DataFormat format);

// Like read_documents().
void read_documents(io::FileSystem& fs, const std::vector<Source>& sources,
                    const std::function<void(const Document&)>& each);

}  // namespace memlayers::text
