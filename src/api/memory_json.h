// SPDX-License-Identifier: Apache-2.0
// The pool, its patches and what is done with them, as JSON.
#pragma once

#include <cstdint>
#include <vector>

#include "api/json.h"
#include "api/routes.h"
#include "memlayers/store.h"

namespace memlayers::api {

// Throws Refusal 404 for a model without memory layers.
Memory& memory_of(const Call& call);
http::Fields version_headers(std::uint64_t version);  // and ETag

Json pool_json(const Snapshot& pool);
Json patch_json(const PatchInfo& patch);
Json patches_json(const std::vector<PatchInfo>& patches);
// Of conflicts the first thousand, and how many there are.
Json committed_json(const Committed& committed);
Json teach_json(const TeachStatus& status);

}  // namespace memlayers::api
