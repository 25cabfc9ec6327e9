// SPDX-License-Identifier: Apache-2.0
#include "pool/state.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/base64.h"
#include "io/json.h"
#include "io/json_field.h"
#include "io/shown.h"
#include "memlayers/error.h"
#include "pool/patch.h"
#include "pool/row_format.h"
#include "pool/sub_keys.h"

namespace memlayers::pool {
namespace {

using Json = nlohmann::json;

std::string file_name(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

std::string pack(const Json& json) {
  std::string text;
  try {
    text = json.dump();
  } catch (const Json::exception&) {
    throw Error("patch: expected an id and notes in UTF-8");
  }
  const auto size = static_cast<std::uint32_t>(text.size());
  std::string payload(4, '\0');
  std::memcpy(payload.data(), &size, 4);
  return payload + text;
}

std::string where(const Record& record, const std::string& log_path) {
  return log_path + ": record " + std::to_string(record.lsn) + " at byte " +
         std::to_string(record.group);
}

Json unpack(const Record& record, const std::string& log_path,
            std::span<const std::byte>* binary = nullptr) {
  std::uint32_t size = 0;
  if (record.payload.size() >= 4) std::memcpy(&size, record.payload.data(), 4);
  if (record.payload.size() < 4 || size > record.payload.size() - 4) {
    throw Corruption(where(record, log_path) + ": expected a payload of JSON and bytes, got " +
                     std::to_string(record.payload.size()) + " bytes");
  }
  if (binary != nullptr) *binary = std::as_bytes(std::span(record.payload)).subspan(4 + size);
  return io::parse_json(std::string_view(record.payload).substr(4, size), "payload");
}

Json to_json(const ChunkEntry& chunk) {
  return {{"file", chunk.name},
          {"first_row", chunk.first},
          {"rows", chunk.rows},
          {"digest", chunk.digest}};
}

// A name in the pool's folder, no path out of it.
std::string plain_name(const io::JsonField& value) {
  const std::string& name = value.string();
  if (name.empty() || name.find('/') != std::string::npos || name.starts_with('.')) {
    value.fail("the name of a file in the pool's folder");
  }
  return name;
}

ChunkEntry chunk_from(const io::JsonField& chunk) {
  return {plain_name(chunk.at("file")), chunk.at("first_row").count(),
          chunk.at("rows").integer(1, INT64_MAX), chunk.at("digest").string()};
}

std::map<std::string, std::string> strings_from(const io::JsonField& object) {
  std::map<std::string, std::string> strings;
  for (const auto& [name, value] : object.members()) strings[name] = value.string();
  return strings;
}

std::shared_ptr<const SubjectRegistry> subjects_from(const io::JsonField& field) {
  const auto bytes = io::from_base64(field.string());
  if (!bytes) field.fail("base64");
  return std::make_shared<const SubjectRegistry>(
      subjects_of(std::as_bytes(std::span(*bytes)), "subjects"));
}

// Of a patch wherever its rows are.
Json describe(const PatchEntry& patch) {
  Json json = {{"id", patch.id},
               {"content", patch.content},
               {"notes", patch.notes},
               {"rows", patch.rows},
               {"erased", patch.erased}};
  if (patch.sub_keys > 0) {
    json["sub_keys"] = patch.sub_keys;
    json["key_width"] = patch.key_width;
  }
  if (patch.subjects != nullptr) json["subjects"] = io::to_base64(to_bytes(*patch.subjects));
  return json;
}

Json to_json(const PatchEntry& patch) {
  Json json = describe(patch);
  if (!patch.segment.empty()) {
    json["segment"] = patch.segment;
  } else {
    json["log"] = patch.log;
    json["group"] = patch.group;
    json["lsn"] = patch.lsn;
  }
  return json;
}

PatchPointer patch_from(const io::JsonField& stored) {
  auto patch = std::make_shared<PatchEntry>();
  patch->id = stored.at("id").string();
  patch->content = stored.at("content").string();
  patch->notes = strings_from(stored.at("notes"));
  patch->rows = stored.at("rows").count();
  patch->erased = stored.at("erased").count();
  if (const auto sub_keys = stored.find("sub_keys")) {
    patch->sub_keys = sub_keys->integer(1, INT64_MAX);
    patch->key_width = stored.at("key_width").integer(1, INT64_MAX);
  }
  if (const auto subjects = stored.find("subjects")) patch->subjects = subjects_from(*subjects);
  if (const auto segment = stored.find("segment")) {
    patch->segment = plain_name(*segment);
  } else if (const auto log = stored.find("log")) {
    patch->log = plain_name(*log);
    patch->group = stored.at("group").bits();
    patch->lsn = stored.at("lsn").bits();
  }
  return patch;
}

Json to_json(const std::vector<PatchPointer>& patches) {
  Json json = Json::array();
  for (const PatchPointer& patch : patches) json.push_back(to_json(*patch));
  return json;
}

std::vector<PatchPointer> patches_from(const io::JsonField& list) {
  std::vector<PatchPointer> patches;
  for (const io::JsonField& patch : list.elements()) patches.push_back(patch_from(patch));
  return patches;
}

RowType type_named(const io::JsonField& name) {
  for (RowType type : {RowType::kFloat32, RowType::kBFloat16, RowType::kInt8, RowType::kInt4}) {
    if (name.string() == row_type_name(type)) return type;
  }
  name.fail("\"float32\", \"bfloat16\", \"int8\" or \"int4\"");
}

PatchPointer take(std::vector<PatchPointer>& patches, const std::string& id) {
  const auto found = std::ranges::find(patches, id, &PatchEntry::id);
  if (found == patches.end()) throw Error("expected a patch " + io::quote(id) + ", found none");
  PatchPointer patch = *found;
  patches.erase(found);
  return patch;
}

void fold(State& state, const io::JsonField& record) {
  std::vector<std::string> ids;
  for (const io::JsonField& id : record.at("ids").elements()) ids.push_back(id.string());
  if (ids.size() > state.kept) throw Error("expected patches that are kept, got others");
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (state.stack[i]->id != ids[i])
      throw Error("expected patch " + io::shown(state.stack[i]->id));
    state.folded[ids[i]] = state.stack[i]->content;
    if (state.stack[i]->subjects != nullptr) {
      state.folded_subjects.push_back({ids[i], state.stack[i]->subjects});
    }
  }
  state.stack.erase(state.stack.begin(),
                    state.stack.begin() + static_cast<std::ptrdiff_t>(ids.size()));
  state.kept -= ids.size();
  const auto bottom = record.find("bottom");
  state.bottom = bottom ? patch_from(*bottom) : nullptr;
  state.undone.clear();
}

void grow(State& state, std::int64_t rows, const io::JsonField& chunks) {
  std::int64_t next = state.pool.rows;
  for (const io::JsonField& chunk : chunks.elements()) {
    state.base.push_back(chunk_from(chunk));
    if (state.base.back().first != next || state.base.back().rows > rows - next) {
      throw Error("expected chunks that follow row " + std::to_string(next));
    }
    next += state.base.back().rows;
  }
  if (next != rows) throw Error("expected chunks up to row " + std::to_string(rows));
  state.pool.rows = rows;
}

void swap(State& state, const io::JsonField& record) {
  const ChunkEntry chunk = chunk_from(record);
  const auto found = std::ranges::find(state.base, chunk.first, &ChunkEntry::first);
  if (found == state.base.end() || found->rows != chunk.rows) {
    throw Error("expected a chunk in place of one with the same rows");
  }
  *found = chunk;
}

// What a record's JSON says beyond what the checksum vouches for: an error in it is a damaged or a
// newer log, and names the place.
template <class Act>
auto understand(const Record& record, const std::string& log_path, const Act& act) {
  try {
    return act();
  } catch (const Corruption&) {
    throw;
  } catch (const Error& error) {
    throw Corruption(where(record, log_path) + ": " + error.what());
  }
}

}  // namespace

PatchPointer State::find(const std::string& id) const {
  const auto found = std::ranges::find(stack, id, &PatchEntry::id);
  return found == stack.end() ? nullptr : *found;
}

PatchPointer State::find_undone(const std::string& id) const {
  const auto found = std::ranges::find(undone, id, &PatchEntry::id);
  return found == undone.end() ? nullptr : *found;
}

std::vector<PatchPointer> State::layers() const {
  std::vector<PatchPointer> all;
  all.reserve(stack.size() + 1);
  if (bottom != nullptr) all.push_back(bottom);
  all.insert(all.end(), stack.begin(), stack.end());
  return all;
}

std::vector<PatchPointer> State::entries() const {
  std::vector<PatchPointer> all = layers();
  all.insert(all.end(), undone.begin(), undone.end());
  return all;
}

std::set<std::string> State::files() const {
  std::set<std::string> names;
  for (const ChunkEntry& chunk : base) names.insert(chunk.name);
  for (const PatchPointer& patch : entries()) {
    names.insert(patch->segment.empty() ? patch->log : patch->segment);
  }
  return names;
}

std::string state_payload(const State& state) {
  Json base = Json::array();
  for (const ChunkEntry& chunk : state.base) base.push_back(to_json(chunk));
  Json folded_subjects = Json::array();
  for (const auto& [patch, registry] : state.folded_subjects) {
    folded_subjects.push_back({{"id", patch}, {"subjects", io::to_base64(to_bytes(*registry))}});
  }
  return pack({{"pool", state.pool.id},
               {"rows", state.pool.rows},
               {"width", state.pool.width},
               {"dtype", row_type_name(state.pool.type)},
               {"generation", state.pool.generation},
               {"base", base},
               {"bottom", state.bottom == nullptr ? Json() : to_json(*state.bottom)},
               {"stack", to_json(state.stack)},
               {"kept", state.kept},
               {"undone", to_json(state.undone)},
               {"folded", state.folded},
               {"folded_subjects", folded_subjects}});
}

PatchEntry entry_of(const std::string& id, const Writes& writes) {
  PatchEntry entry;
  entry.id = id;
  entry.content = content_digest(writes);
  entry.rows = static_cast<std::int64_t>(writes.slots.size());
  entry.erased = static_cast<std::int64_t>(writes.erased.size());
  entry.sub_keys = static_cast<std::int64_t>(writes.sub_keys.places.size());
  entry.key_width = writes.sub_keys.width;
  return entry;
}

RecordType apply_type(const PatchEntry& patch) {
  return patch.sub_keys > 0 ? RecordType::kApplyWithSubKeys : RecordType::kApply;
}

std::string apply_payload(const PatchEntry& patch, const Writes& writes) {
  Json json = describe(patch);
  if (!patch.segment.empty()) json["segment"] = patch.segment;
  std::string payload = pack(json);
  for (const auto bytes : {std::as_bytes(writes.slots), writes.rows, std::as_bytes(writes.erased),
                           place_bytes(writes.sub_keys), number_bytes(writes.sub_keys)}) {
    payload.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return payload;
}

std::string id_payload(const std::string& id) { return pack({{"id", id}}); }
std::string swap_payload(const ChunkEntry& chunk) { return pack(to_json(chunk)); }
std::string fold_payload(const std::vector<std::string>& ids, const PatchPointer& bottom) {
  return pack({{"ids", ids}, {"bottom", bottom == nullptr ? Json() : to_json(*bottom)}});
}
std::string grow_payload(std::int64_t rows, const std::vector<ChunkEntry>& chunks) {
  Json all = Json::array();
  for (const ChunkEntry& chunk : chunks) all.push_back(to_json(chunk));
  return pack({{"rows", rows}, {"chunks", all}});
}

State state_of(const Record& record, const std::string& log_path) {
  return understand(record, log_path, [&] {
    if (record.type != RecordType::kState) {
      throw Error("expected the first record of a log to be the state of the pool");
    }
    const Json json = unpack(record, log_path);
    const io::JsonField stored(json, "");
    constexpr std::int64_t kMostWidth = std::int64_t{1} << 40;
    State state;
    state.lsn = record.lsn;
    state.pool = {stored.at("pool").string(), 0, stored.at("width").integer(1, kMostWidth),
                  type_named(stored.at("dtype")), stored.at("generation").bits()};
    grow(state, stored.at("rows").count(), stored.at("base"));
    if (const auto bottom = stored.find("bottom")) state.bottom = patch_from(*bottom);
    state.stack = patches_from(stored.at("stack"));
    state.undone = patches_from(stored.at("undone"));
    state.kept = static_cast<std::size_t>(
        stored.at("kept").integer(0, static_cast<std::int64_t>(state.stack.size())));
    state.folded = strings_from(stored.at("folded"));
    if (const auto subjects = stored.find("folded_subjects")) {
      for (const io::JsonField& patch : subjects->elements()) {
        state.folded_subjects.push_back(
            {patch.at("id").string(), subjects_from(patch.at("subjects"))});
      }
    }
    return state;
  });
}

std::shared_ptr<const Overlay> overlay_of(const Record& record, const PoolInfo& pool,
                                          const std::string& log_path) {
  return understand(record, log_path, [&] {
    std::span<const std::byte> binary;
    const Json json = unpack(record, log_path, &binary);
    const PatchPointer patch = patch_from(io::JsonField(json, ""));
    const auto count = static_cast<std::uint64_t>(patch->rows),
               erased = static_cast<std::uint64_t>(patch->erased),
               keys = static_cast<std::uint64_t>(patch->sub_keys),
               width = static_cast<std::uint64_t>(patch->key_width);
    const auto row_bytes = static_cast<std::uint64_t>(row_format(pool.type, pool.width).bytes());
    if (count > binary.size() / (8 + row_bytes) || erased > binary.size() / 8 ||
        keys > binary.size() / sizeof(SubKeyPlace) ||
        (keys > 0 && width > binary.size() / sizeof(float) / keys) ||
        count * (8 + row_bytes) + erased * 8 +
                keys * (sizeof(SubKeyPlace) + width * sizeof(float)) !=
            binary.size()) {
      throw Error("expected " + std::to_string(count) + " rows, " + std::to_string(erased) +
                  " erased slots and " + std::to_string(keys) + " sub-keys, got " +
                  std::to_string(binary.size()) + " bytes");
    }
    const std::vector<std::int64_t> slots = to_slots(binary.first(count * 8));
    const auto behind_rows = binary.subspan(count * (8 + row_bytes));
    const std::vector<std::int64_t> free = to_slots(behind_rows.first(erased * 8));
    const SubKeys sub_keys =
        to_sub_keys(behind_rows.subspan(erased * 8), patch->sub_keys, patch->key_width);
    check_sub_keys("patch " + io::shown(patch->id), sub_keys);
    for (const std::vector<std::int64_t>& list : {slots, free}) {
      if (!list.empty() &&
          (list.front() < 0 || list.back() >= pool.rows ||
           std::ranges::adjacent_find(list, std::greater_equal<>()) != list.end())) {
        throw Error("expected ascending slots in the pool, got others");
      }
    }
    // As a patch file has them: where they lie in the record they are not aligned.
    std::vector<std::byte> rows(count * row_bytes);
    std::ranges::copy(binary.subspan(count * 8, rows.size()), rows.begin());
    check_finite_rows("patch " + io::shown(patch->id), slots, rows, pool.type, pool.width);
    return std::make_shared<const Overlay>(pool, Writes{slots, rows, free, sub_keys});
  });
}

void advance(State& state, const Record& record, const std::string& log_path) {
  understand(record, log_path, [&] {
    if (record.lsn != state.lsn + 1) throw Error("expected the record after the last one");
    const Json unpacked = unpack(record, log_path);
    const io::JsonField json(unpacked, "");
    switch (record.type) {
      case RecordType::kApply:
      case RecordType::kApplyWithSubKeys: {
        const PatchPointer patch = patch_from(json);
        if (record.type != apply_type(*patch)) {
          throw Error("expected sub-keys in a record of type 9 and in no other");
        }
        if (patch->segment.empty()) {
          patch->log = file_name(log_path);
          patch->group = record.group;
          patch->lsn = record.lsn;
          patch->overlay = overlay_of(record, state.pool, log_path);
        }
        std::erase_if(state.undone, [&](const auto& other) { return other->id == patch->id; });
        state.stack.push_back(patch);
        break;
      }
      case RecordType::kRollback: {
        const std::span kept(state.stack.data(), state.kept);
        const std::string& id = json.at("id").string();
        if (std::ranges::find(kept, id, &PatchEntry::id) != kept.end()) {
          throw Error("expected a patch that is not kept, got " + io::quote(id));
        }
        state.undone.push_back(take(state.stack, id));
        break;
      }
      case RecordType::kReapply:
        state.stack.push_back(take(state.undone, json.at("id").string()));
        break;
      case RecordType::kKeep: {
        const auto found = std::ranges::find(state.stack, json.at("id").string(), &PatchEntry::id);
        if (found == state.stack.end()) throw Error("expected a patch in the stack");
        state.kept =
            std::max(state.kept, static_cast<std::size_t>(found - state.stack.begin()) + 1);
        break;
      }
      case RecordType::kSwap:
        swap(state, json);
        break;
      case RecordType::kFold:
        fold(state, json);
        break;
      case RecordType::kGrow:
        grow(state, json.at("rows").count(), json.at("chunks"));
        break;
      case RecordType::kState:
      default:
        throw Error("expected a record of a known type, got " +
                    std::to_string(static_cast<std::uint32_t>(record.type)));
    }
    state.lsn = record.lsn;
  });
}

}  // namespace memlayers::pool
