// SPDX-License-Identifier: Apache-2.0
#include "pool/state.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "memlayers/error.h"
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
  return io::parse_json(std::string_view(record.payload).substr(4, size), where(record, log_path));
}

Json to_json(const ChunkEntry& chunk) {
  return {{"file", chunk.name},
          {"first_row", chunk.first},
          {"rows", chunk.rows},
          {"digest", chunk.digest}};
}

// A name in the pool's folder, no path out of it.
std::string plain_name(const Json& value) {
  auto name = value.get<std::string>();
  if (name.empty() || name.find('/') != std::string::npos || name.starts_with('.')) {
    throw Error("expected the name of a file in the pool's folder, got \"" + name + "\"");
  }
  return name;
}

ChunkEntry chunk_from(const Json& json) {
  ChunkEntry chunk{plain_name(json.at("file")), json.at("first_row").get<std::int64_t>(),
                   json.at("rows").get<std::int64_t>(), json.at("digest").get<std::string>()};
  if (chunk.first < 0 || chunk.rows < 1) throw Error("expected a chunk of rows, got none");
  return chunk;
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

PatchPointer patch_from(const Json& json) {
  auto patch = std::make_shared<PatchEntry>();
  patch->id = json.at("id").get<std::string>();
  patch->content = json.at("content").get<std::string>();
  patch->notes = json.at("notes").get<std::map<std::string, std::string>>();
  patch->rows = json.at("rows").get<std::int64_t>();
  patch->erased = json.at("erased").get<std::int64_t>();
  if (json.contains("sub_keys")) {
    patch->sub_keys = json.at("sub_keys").get<std::int64_t>();
    patch->key_width = json.at("key_width").get<std::int64_t>();
    if (patch->sub_keys < 1 || patch->key_width < 1) {
      throw Error("expected sub_keys and key_width >= 1, got " + std::to_string(patch->sub_keys) +
                  " and " + std::to_string(patch->key_width));
    }
  }
  if (json.contains("segment")) {
    patch->segment = plain_name(json.at("segment"));
  } else if (json.contains("log")) {
    patch->log = plain_name(json.at("log"));
    patch->group = json.at("group").get<std::uint64_t>();
    patch->lsn = json.at("lsn").get<std::uint64_t>();
  }
  return patch;
}

Json to_json(const std::vector<PatchPointer>& patches) {
  Json json = Json::array();
  for (const PatchPointer& patch : patches) json.push_back(to_json(*patch));
  return json;
}

std::vector<PatchPointer> patches_from(const Json& json) {
  std::vector<PatchPointer> patches;
  for (const Json& patch : json) patches.push_back(patch_from(patch));
  return patches;
}

RowType type_named(const std::string& name) {
  for (RowType type : {RowType::kFloat32, RowType::kBFloat16, RowType::kInt8, RowType::kInt4}) {
    if (name == row_type_name(type)) return type;
  }
  throw Error("expected a known dtype, got \"" + name + "\"");
}

PatchPointer take(std::vector<PatchPointer>& patches, const std::string& id) {
  const auto found = std::ranges::find(patches, id, &PatchEntry::id);
  if (found == patches.end()) throw Error("expected a patch \"" + id + "\", found none");
  PatchPointer patch = *found;
  patches.erase(found);
  return patch;
}

void fold(State& state, const Json& json) {
  const auto ids = json.at("ids").get<std::vector<std::string>>();
  if (ids.size() > state.kept) throw Error("expected patches that are kept, got others");
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (state.stack[i]->id != ids[i]) throw Error("expected patch " + state.stack[i]->id);
    state.folded[ids[i]] = state.stack[i]->content;
  }
  state.stack.erase(state.stack.begin(),
                    state.stack.begin() + static_cast<std::ptrdiff_t>(ids.size()));
  state.kept -= ids.size();
  state.bottom = json.at("bottom").is_null() ? nullptr : patch_from(json.at("bottom"));
  state.undone.clear();
}

void grow(State& state, const Json& json) {
  const auto rows = json.at("rows").get<std::int64_t>();
  std::int64_t next = state.pool.rows;
  for (const Json& chunk : json.at("chunks")) {
    state.base.push_back(chunk_from(chunk));
    if (state.base.back().first != next || state.base.back().rows > rows - next) {
      throw Error("expected chunks that follow row " + std::to_string(next));
    }
    next += state.base.back().rows;
  }
  if (next != rows) throw Error("expected chunks up to row " + std::to_string(rows));
  state.pool.rows = rows;
}

void swap(State& state, const Json& json) {
  const ChunkEntry chunk = chunk_from(json);
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
  } catch (const Json::exception& error) {
    throw Corruption(where(record, log_path) + ": " + error.what());
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
               {"folded", state.folded}});
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
    State state;
    state.lsn = record.lsn;
    state.pool = {json.at("pool").get<std::string>(), 0, json.at("width").get<std::int64_t>(),
                  type_named(json.at("dtype").get<std::string>()),
                  json.at("generation").get<std::uint64_t>()};
    if (state.pool.width < 1 || state.pool.width > std::int64_t{1} << 40) {
      throw Error("expected a width in [1, 2^40], got " + std::to_string(state.pool.width));
    }
    grow(state, {{"rows", json.at("rows")}, {"chunks", json.at("base")}});
    if (!json.at("bottom").is_null()) state.bottom = patch_from(json.at("bottom"));
    state.stack = patches_from(json.at("stack"));
    state.undone = patches_from(json.at("undone"));
    state.kept = json.at("kept").get<std::size_t>();
    state.folded = json.at("folded").get<std::map<std::string, std::string>>();
    if (state.kept > state.stack.size()) throw Error("expected at most all patches to be kept");
    return state;
  });
}

std::shared_ptr<const Overlay> overlay_of(const Record& record, const PoolInfo& pool,
                                          const std::string& log_path) {
  return understand(record, log_path, [&] {
    std::span<const std::byte> binary;
    const PatchPointer patch = patch_from(unpack(record, log_path, &binary));
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
    check_sub_keys("patch " + patch->id, sub_keys);
    for (const std::vector<std::int64_t>& list : {slots, free}) {
      if (!list.empty() &&
          (list.front() < 0 || list.back() >= pool.rows ||
           std::ranges::adjacent_find(list, std::greater_equal<>()) != list.end())) {
        throw Error("expected ascending slots in the pool, got others");
      }
    }
    return std::make_shared<const Overlay>(
        pool, Writes{slots, binary.subspan(count * 8, count * row_bytes), free, sub_keys});
  });
}

void advance(State& state, const Record& record, const std::string& log_path) {
  understand(record, log_path, [&] {
    if (record.lsn != state.lsn + 1) throw Error("expected the record after the last one");
    const Json json = unpack(record, log_path);
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
        const auto id = json.at("id").get<std::string>();
        if (std::ranges::find(kept, id, &PatchEntry::id) != kept.end()) {
          throw Error("expected a patch that is not kept, got \"" + id + "\"");
        }
        state.undone.push_back(take(state.stack, id));
        break;
      }
      case RecordType::kReapply:
        state.stack.push_back(take(state.undone, json.at("id").get<std::string>()));
        break;
      case RecordType::kKeep: {
        const auto found =
            std::ranges::find(state.stack, json.at("id").get<std::string>(), &PatchEntry::id);
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
        grow(state, json);
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
