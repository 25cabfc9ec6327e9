// SPDX-License-Identifier: Apache-2.0
// The pool's state and its stack of patches.
#include <algorithm>
#include <charconv>
#include <map>

#include "api/errors.h"
#include "api/memory_json.h"
#include "api/routes.h"
#include "api/status.h"
#include "io/shown.h"

namespace memlayers::api {
namespace {

// The version of `If-Match: "7"`, also without quotation marks; none where it is "*" or absent.
std::optional<std::uint64_t> if_match(const http::Request& request) {
  const std::string* field = request.header("if-match");
  if (field == nullptr || *field == "*") return std::nullopt;
  std::string_view text = *field;
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') {
    text = text.substr(1, text.size() - 2);
  }
  std::uint64_t version = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), version);
  if (error != std::errc() || end != text.data() + text.size()) {
    throw Refusal(kBadRequest, "invalid_header",
                  "If-Match: expected a version of the pool, got " + io::quote(*field));
  }
  return version;
}

const PatchInfo* find(const std::vector<PatchInfo>& patches, const std::string& id) {
  const auto found = std::ranges::find(patches, id, &PatchInfo::id);
  return found == patches.end() ? nullptr : &*found;
}

[[noreturn]] void fail_unknown(const std::string& id) {
  throw Refusal(kNotFound, "patch_not_found", "the pool has no patch " + io::quote(id), "id");
}

void state(const Call& call) {
  Memory& memory = memory_of(call);
  const Snapshot pool = memory.snapshot();
  Json json = pool_json(pool);
  json["health"] = memory.health();
  json["held_versions"] = memory.held_versions();
  json["weights_digest"] = call.shared->engine.weights_digest();
  call.answer(kOk, json, version_headers(pool.version()));
}

void patches(const Call& call) {
  const Snapshot pool = memory_of(call).snapshot();
  call.answer(kOk,
              {{"version", pool.version()},
               {"patches", patches_json(pool.patches())},
               {"undone", patches_json(pool.undone())}},
              version_headers(pool.version()));
}

// With the patches that wrote its slots anew.
void patch(const Call& call) {
  const Snapshot pool = memory_of(call).snapshot();
  const std::string& id = call.arguments[0];
  const auto applied = pool.patches(), undone = pool.undone();
  const PatchInfo* info = find(applied, id);
  const bool is_applied = info != nullptr;
  if (!is_applied) info = find(undone, id);
  if (info == nullptr) fail_unknown(id);
  Json json = patch_json(*info);
  json["is_applied"] = is_applied;
  if (is_applied) {
    std::map<std::string, std::int64_t> others;
    const Patch written = pool.patch(id);
    for (const auto* slots : {&written.slots, &written.erased}) {
      for (const std::int64_t slot : *slots) {
        const auto writer = pool.writer_of(slot);
        if (writer && *writer != id) ++others[*writer];
      }
    }
    json["overwritten_by"] = Json::array();
    for (const auto& [other, slots] : others) {
      json["overwritten_by"].push_back({{"patch", other}, {"slots", slots}});
    }
  }
  json["version"] = pool.version();
  call.answer(kOk, json, version_headers(pool.version()));
}

void answer_edit(const Call& call, const std::string& id, const Committed& committed) {
  const Snapshot pool = memory_of(call).snapshot();
  Json json = committed_json(committed);
  json["patch"] = nullptr;
  for (const auto& all : {pool.patches(), pool.undone()}) {
    if (const PatchInfo* info = find(all, id)) json["patch"] = patch_json(*info);
  }
  call.shared->log.write("edit", {{"id", call.request().id},
                                  {"method", call.request().method},
                                  {"patch", id},
                                  {"version", committed.version},
                                  {"was_there", committed.was_there}});
  call.answer(kOk, json, version_headers(committed.version));
}

// What a store says of a patch names the file that the upload lies in, which means nothing to a
// client.
std::string without_path(std::string text, const std::string& path) {
  for (std::size_t at = text.find(path); at != std::string::npos; at = text.find(path, at)) {
    text.replace(at, path.size(), "patch");
  }
  return text;
}

void upload(const Call& call) {
  Memory& memory = memory_of(call);
  const auto version = if_match(call.request());
  const auto& file = call.request().body_file;
  if (!file) throw Refusal(kBadRequest, "invalid_patch", "expected a patch file, got no body");
  try {
    const Patch given = read_patch(*file);
    answer_edit(call, given.id, memory.apply(given, version));
  } catch (const Refusal&) {
    throw;
  } catch (const Corruption&) {
    throw;
  } catch (const Error& error) {
    throw Refusal(kBadRequest, "invalid_patch", without_path(error.what(), *file));
  }
}

enum class Edit { kRollback, kReapply, kKeep };

void edit(const Call& call, Edit edit) {
  Memory& memory = memory_of(call);
  const std::string& id = call.arguments[0];
  const auto version = if_match(call.request());
  const Snapshot pool = memory.snapshot();
  const auto applied = pool.patches();
  const PatchInfo* info = find(applied, id);
  if (info == nullptr && (edit == Edit::kKeep || find(pool.undone(), id) == nullptr)) {
    fail_unknown(id);
  }
  if (info != nullptr && info->is_kept && edit == Edit::kRollback) {
    throw Refusal(kConflict, "patch_is_kept",
                  "the patch " + io::quote(id) + " is kept: it can no longer be rolled back", "id");
  }
  const auto act = edit == Edit::kRollback  ? &Memory::rollback
                   : edit == Edit::kReapply ? &Memory::reapply
                                            : &Memory::keep;
  answer_edit(call, id, (memory.*act)(id, version));
}

}  // namespace

std::vector<Route> memory_routes() {
  return {
      {.method = "GET",
       .path = "/v1/memory",
       .right = Right::kAdmin,
       .where = Where::kAsks,
       .summary = "The pool: its version, slots and patches.",
       .run = state},
      {.method = "GET",
       .path = "/v1/memory/patches",
       .right = Right::kAdmin,
       .where = Where::kAsks,
       .summary = "The stack of patches, the first applied first, and those rolled back.",
       .run = patches},
      {.method = "POST",
       .path = "/v1/memory/patches",
       .right = Right::kAdmin,
       .where = Where::kEdits,
       .body = Body::kFile,
       .summary = "Applies the patch file that is the body. 200 once it is on the disk; applying "
                  "it again changes nothing. With If-Match only at that version, else 412.",
       .run = upload},
      {.method = "GET",
       .path = "/v1/memory/patches/{id}",
       .right = Right::kAdmin,
       .where = Where::kEdits,
       .summary = "A patch, and what was written over it.",
       .run = patch},
      {.method = "DELETE",
       .path = "/v1/memory/patches/{id}",
       .right = Right::kAdmin,
       .where = Where::kEdits,
       .summary = "Rolls a patch back, wherever it is in the stack. If-Match as above.",
       .run = [](const Call& call) { edit(call, Edit::kRollback); }},
      {.method = "POST",
       .path = "/v1/memory/patches/{id}/reapply",
       .right = Right::kAdmin,
       .where = Where::kEdits,
       .summary = "Applies a patch that was rolled back, on top of the others.",
       .run = [](const Call& call) { edit(call, Edit::kReapply); }},
      {.method = "POST",
       .path = "/v1/memory/patches/{id}/keep",
       .right = Right::kAdmin,
       .where = Where::kEdits,
       .summary = "This patch and those below it will not be rolled back.",
       .run = [](const Call& call) { edit(call, Edit::kKeep); }}};
}

}  // namespace memlayers::api
