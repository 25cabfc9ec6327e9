// SPDX-License-Identifier: Apache-2.0
// TensorBoard event files, written by hand: libtorch exports symbols of its own old
// google::protobuf, so linking Debian's protobuf into the same process would mix two versions. The
// few messages needed are plain wire format (tag, varint, little-endian), and the framing is that
// of TFRecord:
//   u64 length | u32 masked CRC32C of the 8 length bytes | bytes | u32 masked CRC32C of the bytes
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "io/file_system.h"

namespace memlayers::train {

std::uint32_t crc32c(std::string_view data);
std::uint32_t masked_crc32c(std::string_view data);  // as TFRecord stores it

class EventFile {
 public:
  // A new file in `folder`. TensorBoard drops what earlier files of the folder say about steps
  // after `first_step`. `time` is in seconds since 1970 and part of the name.
  EventFile(io::FileSystem& files, const std::string& folder, std::int64_t first_step, double time);

  // Values that are not finite are left out.
  void add(std::int64_t step, double time,
           const std::vector<std::pair<std::string, double>>& scalars);

 private:
  void write(const std::string& event);
  std::unique_ptr<io::File> file_;
  std::uint64_t end_ = 0;
};

}  // namespace memlayers::train
