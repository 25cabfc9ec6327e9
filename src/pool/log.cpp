// SPDX-License-Identifier: Apache-2.0
#include "pool/log.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include "memlayers/error.h"

namespace memlayers::pool {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kSector = 512;
// A sector: u32 its number in the group, bytes of the group's stream, u64 checksum.
constexpr std::uint64_t kSectorHead = 4, kSectorData = 500, kSectorCheck = 504;
constexpr std::uint64_t kWindow = 1 << 20;

// The first sector of the file; the rest of its page is zero.
struct FileHead {
  std::array<char, 16> magic;
  std::uint32_t version, features;
  std::uint64_t salt, first_lsn;
  std::array<char, 464> zeros;
  std::uint64_t checksum;
};
static_assert(sizeof(FileHead) == kSector);
constexpr std::array<char, 16> kMagic{'m', 'e', 'm', 'l', 'a', 'y', 'e',
                                      'r', 's', '-', 'l', 'o', 'g'};

// Before a record's payload; the u64 checksum of head and payload comes behind it.
struct RecordHead {
  std::uint64_t payload_bytes;
  std::uint32_t type, zero;
  std::uint64_t lsn, salt, previous;
};
static_assert(sizeof(RecordHead) == 40);

bool is_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

// The place goes in, so that a sector that was written elsewhere is not taken for this one.
std::uint64_t sector_checksum(std::span<const std::byte> sector, std::uint64_t salt,
                              std::uint64_t offset) {
  return XXH3_64bits_withSeed(sector.data(), kSectorCheck, salt ^ (offset * 0x9e3779b97f4a7c15));
}

std::uint64_t group_bytes(std::uint64_t stream_bytes) {
  const std::uint64_t sectors = (stream_bytes + kSectorData - 1) / kSectorData;
  return (sectors * kSector + kPage - 1) / kPage * kPage;
}

std::uint64_t stream_bytes(std::span<const Record> records) {
  std::uint64_t bytes = 8;
  for (const Record& record : records) bytes += sizeof(RecordHead) + record.payload.size() + 8;
  return bytes;
}

std::string at(const std::string& path, std::uint64_t offset) {
  return path + ": at byte " + std::to_string(offset) + ": ";
}

void write_zeros(io::File& file, std::uint64_t begin, std::uint64_t end) {
  const std::vector<std::byte> zeros(std::min(end - begin, kWindow));
  for (std::uint64_t offset = begin; offset < end; offset += zeros.size()) {
    file.pwrite(std::span(zeros).first(std::min<std::uint64_t>(zeros.size(), end - offset)),
                offset);
  }
}

std::uint64_t new_salt() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

}  // namespace

LogCursor::LogCursor(std::shared_ptr<io::File> file, std::string path)
    : file_(std::move(file)), path_(std::move(path)), end_(kPage) {
  if (file_->size() < kPage) {
    throw Corruption(path_ + ": expected a log of at least " + std::to_string(kPage) +
                     " bytes, got " + std::to_string(file_->size()));
  }
  std::vector<std::byte> page(kPage);
  file_->pread(page, 0);
  FileHead head{};
  std::memcpy(&head, page.data(), sizeof(head));
  if (head.magic != kMagic) {
    throw Corruption(at(path_, 0) + "expected the first bytes of a memlayers log, got others");
  }
  if (head.checksum != XXH3_64bits(page.data(), kSectorCheck) ||
      !is_zero(std::span(page).subspan(kSector))) {
    throw Corruption(at(path_, 0) +
                     "expected the checksum of the log's first page to hold, got "
                     "another: the file was altered");
  }
  if (head.version != 1 || head.features != 0) {
    throw Error(path_ + ": expected a log of version 1 with features 0, got version " +
                std::to_string(head.version) + " with features " + std::to_string(head.features) +
                ": written by a newer version");
  }
  salt_ = head.salt;
  next_lsn_ = head.first_lsn;
}

bool LogCursor::is_sector_good(std::span<const std::byte> sector, std::uint64_t offset) const {
  std::uint64_t checksum = 0;
  std::memcpy(&checksum, sector.data() + kSectorCheck, 8);
  return checksum == sector_checksum(sector, salt_, offset);
}

std::optional<std::vector<std::byte>> LogCursor::read_group(std::uint64_t offset,
                                                            std::uint64_t& group_end) const {
  const std::uint64_t size = file_->size();
  if (offset > size || size - offset < kPage) return std::nullopt;
  std::vector<std::byte> group(kPage);
  file_->pread(group, offset);
  std::uint64_t bytes = 0;
  std::vector<std::byte> stream;
  for (std::uint64_t sector = 0; sector * kSector < group.size(); ++sector) {
    const auto part = std::span(group).subspan(sector * kSector, kSector);
    const std::uint64_t place = offset + sector * kSector;
    const bool is_padding = sector > 0 && sector * kSectorData >= bytes;
    if (is_padding) {
      if (is_zero(part)) continue;
      throw Corruption(at(path_, place) + "expected zeros behind a group of records, got others");
    }
    if (is_zero(part)) return std::nullopt;
    std::uint32_t number = 0;
    std::memcpy(&number, part.data(), 4);
    if (!is_sector_good(part, place)) {
      throw Corruption(at(path_, place) +
                       "expected the sector's checksum to hold, got another: the file was altered");
    }
    if (number != sector) {
      throw Corruption(at(path_, place) + "expected sector " + std::to_string(sector) +
                       " of a group, got " + std::to_string(number));
    }
    if (sector == 0) {
      std::memcpy(&bytes, part.data() + kSectorHead, 8);
      // In this order: the sum of a group as long as the file says cannot overflow.
      if (bytes < 8 || bytes > size || group_bytes(bytes) > size - offset) {
        throw Corruption(at(path_, place) + "expected a group inside the file's " +
                         std::to_string(size) + " bytes, got one of " + std::to_string(bytes));
      }
      const std::uint64_t all = group_bytes(bytes);
      group.resize(all);
      if (all > kPage) file_->pread(std::span(group).subspan(kPage), offset + kPage);
      stream.reserve(bytes);
    }
    const auto data = std::span(group).subspan(sector * kSector + kSectorHead,
                                               std::min(kSectorData, bytes - sector * kSectorData));
    stream.insert(stream.end(), data.begin(), data.end());
  }
  group_end = offset + group.size();
  return stream;
}

std::vector<Record> LogCursor::parse(std::span<const std::byte> stream, std::uint64_t offset,
                                     std::uint64_t& lsn, std::uint64_t& previous) const {
  std::vector<Record> records;
  for (std::uint64_t place = 8; place < stream.size();) {
    RecordHead head{};
    const std::uint64_t rest = stream.size() - place;
    if (rest < sizeof(head) + 8) {
      throw Corruption(at(path_, offset) +
                       "expected whole records in the group, got one cut short");
    }
    std::memcpy(&head, stream.data() + place, sizeof(head));
    if (head.payload_bytes > rest - sizeof(head) - 8) {
      throw Corruption(at(path_, offset) + "expected a record inside its group, got one of " +
                       std::to_string(head.payload_bytes) + " bytes");
    }
    const std::uint64_t checked = sizeof(head) + head.payload_bytes;
    std::uint64_t checksum = 0;
    std::memcpy(&checksum, stream.data() + place + checked, 8);
    if (checksum != XXH3_64bits(stream.data() + place, checked)) {
      throw Corruption(at(path_, offset) +
                       "expected the checksum of a record to hold, got another");
    }
    if (head.lsn != lsn || head.salt != salt_ || head.previous != previous) {
      throw Corruption(at(path_, offset) + "expected record " + std::to_string(lsn) +
                       ", linked to the one before it, got record " + std::to_string(head.lsn));
    }
    const auto* payload = reinterpret_cast<const char*>(stream.data() + place + sizeof(head));
    records.push_back({static_cast<RecordType>(head.type), head.lsn,
                       std::string(payload, head.payload_bytes), offset});
    ++lsn;
    previous = checksum;
    place += checked + 8;
  }
  if (records.empty())
    throw Corruption(at(path_, offset) + "expected records in a group, got none");
  return records;
}

std::optional<std::vector<Record>> LogCursor::next_group() {
  std::uint64_t group_end = 0;
  const auto stream = read_group(end_, group_end);
  if (!stream) return std::nullopt;
  std::vector<Record> records = parse(*stream, end_, next_lsn_, previous_);
  end_ = group_end;
  if (begin_ == 0) begin_ = end_;
  return records;
}

std::vector<Record> LogCursor::group_at(std::uint64_t offset) {
  std::uint64_t group_end = 0;
  const auto stream = offset % kPage == 0 ? read_group(offset, group_end) : std::nullopt;
  if (!stream || stream->size() < 8 + sizeof(RecordHead)) {
    throw Corruption(at(path_, offset) + "expected a group of records, got none");
  }
  RecordHead head{};
  std::memcpy(&head, stream->data() + 8, sizeof(head));
  return parse(*stream, offset, head.lsn, head.previous);
}

bool LogCursor::is_torn() const {
  const std::uint64_t size = file_->size();
  if (size < end_ + kPage) {  // see LogWriter::reserve()
    throw Corruption(at(path_, end_) +
                     "expected a page of zeros or more behind the last record, got the end of the "
                     "file: it was cut, acknowledged edits may be lost");
  }
  bool is_torn = false;
  std::vector<std::byte> window(kWindow);
  for (std::uint64_t begin = end_; begin < size; begin += kWindow) {
    const auto part = std::span(window).first(std::min(kWindow, size - begin));
    file_->pread(part, begin);
    if (is_zero(part)) continue;
    for (std::uint64_t place = 0; place < part.size(); place += kSector) {
      const auto sector = part.subspan(place, std::min(kSector, part.size() - place));
      if (is_zero(sector)) continue;
      std::uint32_t number = 0;
      std::memcpy(&number, sector.data(), 4);
      if (sector.size() < kSector || !is_sector_good(sector, begin + place)) {
        throw Corruption(at(path_, begin + place) +
                         "expected zeros behind the last record, got others: the file was altered");
      }
      // The torn group itself begins at the end; another one was only begun once that was whole.
      if (number == 0 && begin + place != end_) {
        throw Corruption(at(path_, end_) + "expected record " + std::to_string(next_lsn_) +
                         ", got none although records follow at byte " +
                         std::to_string(begin + place) + ": acknowledged edits are lost");
      }
      is_torn = true;
    }
  }
  return is_torn;
}

std::vector<std::byte> LogWriter::encode(std::span<const Record> records,
                                         std::uint64_t& previous) const {
  std::vector<std::byte> stream(8);
  const auto put = [&](const void* data, std::size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    stream.insert(stream.end(), bytes, bytes + size);
  };
  stream.reserve(stream_bytes(records));
  for (const Record& record : records) {
    const std::size_t begin = stream.size();
    const RecordHead head{record.payload.size(),
                          static_cast<std::uint32_t>(record.type),
                          0,
                          record.lsn,
                          salt_,
                          previous};
    put(&head, sizeof(head));
    put(record.payload.data(), record.payload.size());
    previous = XXH3_64bits(stream.data() + begin, stream.size() - begin);
    put(&previous, 8);
  }
  const std::uint64_t bytes = stream.size();
  std::memcpy(stream.data(), &bytes, 8);
  std::vector<std::byte> group(group_bytes(bytes));
  for (std::uint32_t sector = 0; sector * kSectorData < bytes; ++sector) {
    std::byte* to = group.data() + sector * kSector;
    std::memcpy(to, &sector, 4);
    std::memcpy(to + kSectorHead, stream.data() + sector * kSectorData,
                std::min(kSectorData, bytes - sector * kSectorData));
    const std::uint64_t checksum = sector_checksum({to, kSector}, salt_, end_ + sector * kSector);
    std::memcpy(to + kSectorCheck, &checksum, 8);
  }
  return group;
}

LogWriter LogWriter::create(io::FileSystem& fs, const std::string& path, const Record& first,
                            std::uint64_t step_bytes) {
  const std::string temporary = path + ".tmp";
  LogWriter log;
  log.path_ = path;
  log.salt_ = new_salt();
  log.end_ = kPage;
  log.step_bytes_ = std::max(step_bytes / kPage, std::uint64_t{1}) * kPage;
  FileHead head{};
  head.magic = kMagic;
  head.version = 1;
  head.salt = log.salt_;
  head.first_lsn = first.lsn;
  head.checksum = XXH3_64bits(&head, kSectorCheck);
  std::vector<std::byte> content(kPage);
  std::memcpy(content.data(), &head, sizeof(head));
  const std::vector<std::byte> group = log.encode({&first, 1}, log.previous_);
  content.insert(content.end(), group.begin(), group.end());
  log.begin_ = log.end_ = content.size();
  log.size_ = log.end_ + log.step_bytes_;
  try {
    for (const std::string& name : {temporary, path}) {
      if (fs.exists(name)) fs.unlink(name);
    }
    log.file_ = fs.open(temporary, io::OpenMode::kCreate);
    log.file_->pwrite(content, 0);
    write_zeros(*log.file_, log.end_, log.size_);
    log.file_->sync();
    fs.rename(temporary, path);
  } catch (...) {
    log.file_.reset();
    try {
      if (fs.exists(temporary)) fs.unlink(temporary);
    } catch (const Error&) {  // the first error is the one to tell
    }
    throw;
  }
  return log;
}

LogWriter LogWriter::resume(const LogCursor& cursor, std::uint64_t step_bytes) {
  LogWriter log;
  log.file_ = cursor.file_;
  log.path_ = cursor.path_;
  log.salt_ = cursor.salt_;
  log.begin_ = cursor.begin_;
  log.end_ = cursor.end_;
  log.size_ = std::max(cursor.file_->size() / kPage * kPage, log.end_);
  log.step_bytes_ = std::max(step_bytes / kPage, std::uint64_t{1}) * kPage;
  log.previous_ = cursor.previous_;
  return log;
}

void LogWriter::reserve(std::span<const Record> records) {
  // A page of zeros stays behind the last record, so that a file that was cut is known.
  const std::uint64_t wanted = end_ + group_bytes(stream_bytes(records)) + kPage;
  if (wanted <= size_) return;
  const std::uint64_t size = wanted + step_bytes_;
  write_zeros(*file_, size_, size);
  try {
    file_->sync();
  } catch (const Error&) {
    has_failed_ = true;
    throw;
  }
  size_ = size;
}

void LogWriter::append(std::span<const Record> records) {
  const std::vector<std::byte> group = encode(records, previous_);
  try {
    file_->pwrite(group, end_);
    file_->sync();
  } catch (const Error&) {
    has_failed_ = true;
    throw;
  }
  end_ += group.size();
}

}  // namespace memlayers::pool
