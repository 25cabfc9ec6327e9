// SPDX-License-Identifier: Apache-2.0
// The commit log. Checksums keep what is altered from ever being parsed, so besides a log as it is
// (first byte 0) the input can be records that this target seals: each a byte of type, two of
// length and a payload, the first one only if its type is that of a state.
#include "fuzz/edited_pool.h"
#include "pool/log.h"
#include "pool/recovery.h"

namespace {

using namespace memlayers;

std::vector<pool::Record> records_of(std::span<const std::uint8_t> input) {
  std::vector<pool::Record> records;
  while (input.size() >= 3 && records.size() < 64) {
    const std::size_t length = std::min<std::size_t>(input[1] + 256U * input[2], input.size() - 3);
    const auto payload = input.subspan(3, length);
    records.push_back(
        {static_cast<pool::RecordType>(input[0]), 0, std::string(payload.begin(), payload.end())});
    input = input.subspan(3 + length);
  }
  return records;
}

// Segments have random names: the corpus's becomes that of the pool at hand.
void name_segment(std::string& payload, const testing::MemoryFileSystem& fs) {
  constexpr std::size_t kLength = 4 + 36;  // of "seg-" and a UUID
  const std::size_t at = payload.find("seg-");
  if (at == std::string::npos || payload.size() < at + kLength) return;
  for (const std::string& path : fs.files()) {
    const std::size_t name = path.find("seg-");
    if (name != std::string::npos) payload.replace(at, kLength, path.substr(name, kLength));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const testing::MemoryFileSystem edited = fuzz::edited_pool();
  if (size == 0) return 0;
  testing::MemoryFileSystem fs(edited);
  if (data[0] == 0) {
    fuzz::put(fs, "pool/log-1", fuzz::bytes_of(data + 1, size - 1));
    fuzz::use_pool(fs);
    return 0;
  }
  std::vector<pool::Record> records = records_of({data + 1, size - 1});
  if (records.empty()) return 0;
  const auto original = std::shared_ptr(fs.open("pool/log-1", io::OpenMode::kRead));
  pool::Record first = pool::LogCursor(original, "log-1").next_group()->front();
  if (records.front().type == pool::RecordType::kState) {
    first.payload = std::move(records.front().payload);
    records.erase(records.begin());
  }
  fs.unlink("pool/log-1");
  pool::LogWriter log = pool::LogWriter::create(fs, "pool/log-1", first, 4096);
  std::uint64_t lsn = first.lsn;
  for (pool::Record& record : records) {
    record.lsn = ++lsn;
    name_segment(record.payload, fs);
  }
  if (!records.empty()) {
    log.reserve(records);
    log.append(records);
  }
  fuzz::use_pool(fs);
  return 0;
}
