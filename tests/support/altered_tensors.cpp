// SPDX-License-Identifier: Apache-2.0
#include "support/altered_tensors.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "io/folder.h"
#include "io/safetensors.h"

namespace memlayers::testing {
namespace {

void make_checksums_right(AlteredTensors& file) {
  constexpr std::size_t kBlock = 64 << 10;
  const std::span<const std::byte> rows(file.tensors.at("rows"));
  std::vector<std::byte>& sums = file.tensors.at("xxh3");
  for (std::size_t at = 0, i = 0; at < rows.size(); at += kBlock, ++i) {
    const std::uint64_t sum = io::xxh3(rows.subspan(at, std::min(kBlock, rows.size() - at)));
    std::memcpy(sums.data() + i * sizeof(sum), &sum, sizeof(sum));
  }
  file.metadata["digest"] = io::xxh3_hex(sums);
  std::string header;
  for (const auto& [key, value] : file.metadata) {
    if (key != "header_xxh3") header += key + "=" + value + "\n";
  }
  file.metadata["header_xxh3"] = io::xxh3_hex(std::as_bytes(std::span(header)));
}

// write_safetensors() refuses numbers that are not finite: so zeros first, which end the file.
void write_unchecked(const std::string& path, std::vector<io::TensorToWrite>& all,
                     const AlteredTensors& altered) {
  std::map<std::string, std::vector<std::byte>> zeros;
  std::uint64_t bytes = 0;
  for (io::TensorToWrite& tensor : all) {
    zeros[tensor.name].resize(altered.tensors.at(tensor.name).size());
    tensor.bytes = zeros[tensor.name];
    bytes += tensor.bytes.size();
  }
  io::write_safetensors(io::posix(), path, all, altered.metadata, 4096);
  const auto file = io::posix().open(path, io::OpenMode::kReadWrite);
  std::uint64_t place = file->size() - bytes;
  for (const io::TensorToWrite& tensor : all) {
    const std::vector<std::byte>& content = altered.tensors.at(tensor.name);
    file->pwrite(content, place);
    place += content.size();
  }
}

}  // namespace

void alter_tensors(const std::string& path, const std::function<void(AlteredTensors&)>& change) {
  AlteredTensors altered;
  std::vector<io::TensorToWrite> all;
  {
    const io::SafetensorsFile file = io::SafetensorsFile::open(io::posix(), path);
    altered.metadata = file.metadata();
    std::map<const std::byte*, std::string> in_order;
    for (const auto& [name, view] : file.tensors()) {
      altered.tensors[name].assign(view.bytes.begin(), view.bytes.end());
      in_order[view.bytes.data()] += name;  // `rows` comes first, and begins on a page
    }
    for (const auto& [at, name] : in_order) {
      if (!file.tensors().contains(name)) continue;
      all.push_back({name, file.at(name).type, file.at(name).shape, {}});
    }
    for (const auto& [name, view] : file.tensors()) {
      const bool is_there = std::ranges::find(all, name, &io::TensorToWrite::name) != all.end();
      if (!is_there) all.push_back({name, view.type, view.shape, {}});  // of no bytes
    }
  }
  change(altered);
  if (altered.metadata.contains("header_xxh3")) make_checksums_right(altered);
  io::posix().unlink(path);
  write_unchecked(path, all, altered);
}

void alter_row_number(const std::string& path, std::size_t index, float value) {
  alter_tensors(path, [&](AlteredTensors& file) {
    if (file.metadata["format"] == "memlayers-patch") file.metadata.erase("content");
    std::memcpy(file.tensors.at("rows").data() + index * sizeof(value), &value, sizeof(value));
  });
}

}  // namespace memlayers::testing
