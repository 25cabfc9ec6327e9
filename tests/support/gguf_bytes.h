// SPDX-License-Identifier: Apache-2.0
// GGUF files made byte by byte, sound ones and others.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace memlayers::testing {

template <class Number>
std::string little_endian(Number number) {
  std::string bytes(sizeof(Number), '\0');
  std::memcpy(bytes.data(), &number, sizeof(Number));
  return bytes;
}

inline std::string gguf_string(std::string_view text) {
  return little_endian(std::uint64_t{text.size()}) + std::string(text);
}

// Fields may be altered before bytes() puts the file together.
struct GgufBytes {
  struct Info {
    std::string name;
    std::vector<std::uint64_t> extents;  // innermost first
    std::uint32_t type;
    std::uint64_t offset;
  };
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t more_tensors = 0, more_keys = 0;  // that are only said to be there
  std::uint64_t keys = 0;
  std::string key_bytes;
  std::vector<Info> infos;
  std::string data;
  std::uint64_t alignment = 32;

  void raw(std::string_view key, std::uint32_t type, std::string_view value) {
    key_bytes += gguf_string(key) + little_endian(type) + std::string(value);
    ++keys;
  }
  void text(std::string_view key, std::string_view value) { raw(key, 8, gguf_string(value)); }
  void number(std::string_view key, std::uint32_t value) { raw(key, 4, little_endian(value)); }
  void real(std::string_view key, float value) { raw(key, 6, little_endian(value)); }
  void flag(std::string_view key, bool value) { raw(key, 7, std::string(1, value ? '\1' : '\0')); }
  void texts(std::string_view key, const std::vector<std::string>& values) {
    std::string all = little_endian(std::uint32_t{8}) + little_endian(std::uint64_t{values.size()});
    for (const std::string& value : values) all += gguf_string(value);
    raw(key, 9, all);
  }
  template <class Number>
  void list(std::string_view key, std::uint32_t type, const std::vector<Number>& values) {
    std::string all = little_endian(type) + little_endian(std::uint64_t{values.size()});
    for (const Number value : values) all += little_endian(value);
    raw(key, 9, all);
  }

  void tensor(const std::string& name, std::vector<std::uint64_t> extents, std::uint32_t type,
              const std::string& bytes) {
    infos.push_back({name, std::move(extents), type, data.size()});
    data += bytes;
    data.append((alignment - data.size() % alignment) % alignment, '\0');
  }
  void floats(const std::string& name, std::vector<std::uint64_t> extents,
              const std::vector<float>& values) {
    std::string bytes;
    for (const float value : values) bytes += little_endian(value);
    tensor(name, std::move(extents), 0, bytes);
  }

  std::string head() const {
    std::string all = magic + little_endian(version) +
                      little_endian(std::uint64_t{infos.size()} + more_tensors) +
                      little_endian(keys + more_keys) + key_bytes;
    for (const Info& info : infos) {
      all +=
          gguf_string(info.name) + little_endian(static_cast<std::uint32_t>(info.extents.size()));
      for (const std::uint64_t extent : info.extents) all += little_endian(extent);
      all += little_endian(info.type) + little_endian(info.offset);
    }
    return all;
  }
  std::string bytes() const {
    std::string all = head();
    all.append((alignment - all.size() % alignment) % alignment, '\0');
    return all + data;
  }
};

}  // namespace memlayers::testing
