// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "io/folder.h"
#include "support/testing.h"

namespace memlayers::testing {

// Where a safetensors file has a tensor.
struct TensorPlace {
  std::size_t begin, size;
};
inline TensorPlace place_of(const std::string& file, const std::string& tensor) {
  std::uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof header);
  const auto json = nlohmann::json::parse(file.substr(8, header));
  const auto& offsets = json.at(tensor).at("data_offsets");
  const auto begin = offsets[0].get<std::size_t>(), end = offsets[1].get<std::size_t>();
  return {8 + header + begin, end - begin};
}

// Sets all bytes of a tensor: 0xff makes NaN of floating-point numbers, -1 of whole ones.
inline void fill_tensor(const std::string& path, const std::string& tensor, unsigned char byte) {
  std::string file = read_file(path);
  const TensorPlace place = place_of(file, tensor);
  std::memset(file.data() + place.begin, byte, place.size);
  write_file(path, file);
}

// The same for the rows of a chunk, whose checksums hold again afterwards.
inline void fill_rows(const std::string& path, unsigned char byte) {
  fill_tensor(path, "rows", byte);
  std::string file = read_file(path);
  const TensorPlace rows = place_of(file, "rows"), sums = place_of(file, "xxh3");
  const auto bytes = std::as_bytes(std::span(file)).subspan(rows.begin, rows.size);
  constexpr std::size_t kBlock = 64 << 10;
  std::vector<std::uint64_t> checksums;
  for (std::size_t at = 0; at < bytes.size(); at += kBlock) {
    checksums.push_back(io::xxh3(bytes.subspan(at, std::min(kBlock, bytes.size() - at))));
  }
  std::memcpy(file.data() + sums.begin, checksums.data(), sums.size);
  std::uint64_t size = 0;
  std::memcpy(&size, file.data(), sizeof size);
  auto metadata = nlohmann::json::parse(file.substr(8, size))
                      .at("__metadata__")
                      .get<std::map<std::string, std::string>>();
  const auto replace = [&](const std::string& key, const std::string& value) {
    const std::string before = "\"" + key + "\":\"" + metadata.at(key), now = "\"" + key + "\":\"";
    file.replace(file.find(before), before.size(), now + value);
    metadata[key] = value;
  };
  replace("digest", io::xxh3_hex(std::as_bytes(std::span(checksums))));
  std::string header;
  for (const auto& [key, value] : metadata) {
    if (key != "header_xxh3") header += key + "=" + value + "\n";
  }
  replace("header_xxh3", io::xxh3_hex(std::as_bytes(std::span(header))));
  write_file(path, file);
}

// The manifest of a checkpoint agrees with whatever is there now: what is found, is found by what
// files say of themselves.
inline void close_again(const std::string& folder) {
  const std::string files = folder + ".files";
  std::filesystem::remove(folder + "/MANIFEST.json");
  std::filesystem::rename(folder, files);
  io::FolderWriter writer(io::posix(), folder);
  const std::string place = io::parent(writer.file("config.json"));
  std::filesystem::copy(files, place, std::filesystem::copy_options::recursive);
  writer.commit();
  std::filesystem::remove_all(files);
}

}  // namespace memlayers::testing
