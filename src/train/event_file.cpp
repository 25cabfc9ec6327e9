// SPDX-License-Identifier: Apache-2.0
#include "train/event_file.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <span>

namespace memlayers::train {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0);
    table[i] = crc;
  }
  return table;
}

template <class T>
void append_little_endian(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

// Protobuf's wire format: https://protobuf.dev/programming-guides/encoding
enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

void append_tag(std::string& out, int field, WireType type) {
  append_varint(out, static_cast<std::uint64_t>(field) << 3 | type);
}

void append_bytes(std::string& out, int field, std::string_view bytes) {
  append_tag(out, field, kBytes);
  append_varint(out, bytes.size());
  out += bytes;
}

// Event{wall_time = 1, step = 2}; the caller adds what the event says.
std::string begin_event(double time, std::int64_t step) {
  std::string event;
  append_tag(event, 1, kFixed64);
  append_little_endian(event, time);
  append_tag(event, 2, kVarint);
  append_varint(event, static_cast<std::uint64_t>(step));
  return event;
}

}  // namespace

std::uint32_t crc32c(std::string_view data) {
  static constexpr std::array<std::uint32_t, 256> kTable = make_crc_table();
  std::uint32_t crc = ~0U;
  for (const char c : data) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

std::uint32_t masked_crc32c(std::string_view data) {
  const std::uint32_t crc = crc32c(data);
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
}

EventFile::EventFile(io::FileSystem& files, const std::string& folder, std::int64_t first_step,
                     double time) {
  io::make_folders(files, folder);
  // Two starts within a second differ by a number; TensorBoard reads files in the order of their
  // names.
  char name[64];
  std::string path;
  for (int n = 0; n == 0 || files.exists(path); ++n) {
    std::snprintf(name, sizeof name, "events.out.tfevents.%010lld.%03d.memlayers",
                  static_cast<long long>(time), n);
    path = io::join(folder, name);
  }
  file_ = files.open(path, io::OpenMode::kCreate);

  std::string version = begin_event(time, 0);
  append_bytes(version, 3, "brain.Event:2");
  write(version);
  if (first_step > 0) {  // Event{session_log = 7: SessionLog{status = 1: START = 1}}
    std::string session, event = begin_event(time, first_step + 1);
    append_tag(session, 1, kVarint);
    append_varint(session, 1);
    append_bytes(event, 7, session);
    write(event);
  }
}

void EventFile::add(std::int64_t step, double time,
                    const std::vector<std::pair<std::string, double>>& scalars) {
  // Event{summary = 5: Summary{value = 1: Value{tag = 1, simple_value = 2}}}
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    if (!std::isfinite(number)) continue;
    std::string value;
    append_bytes(value, 1, tag);
    append_tag(value, 2, kFixed32);
    append_little_endian(value, static_cast<float>(number));
    append_bytes(summary, 1, value);
  }
  std::string event = begin_event(time, step);
  append_bytes(event, 5, summary);
  write(event);
}

void EventFile::write(const std::string& event) {
  std::string record;
  append_little_endian(record, static_cast<std::uint64_t>(event.size()));
  append_little_endian(record, masked_crc32c(record));
  record += event;
  append_little_endian(record, masked_crc32c(event));
  file_->pwrite(std::as_bytes(std::span(record)), end_);
  end_ += record.size();
}

}  // namespace memlayers::train
