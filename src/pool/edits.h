// SPDX-License-Identifier: Apache-2.0
// Edits of a store, as Store has them; several at a time are one.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pool/store_parts.h"

namespace memlayers::pool {

std::vector<Committed> apply(StoreParts& store, std::span<const Patch> patches);
std::vector<Committed> roll_back(StoreParts& store, std::span<const std::string> ids);
std::vector<Committed> reapply(StoreParts& store, std::span<const std::string> ids);
Committed keep(StoreParts& store, const std::string& id);

// A patch of one slot that depends on the version it follows; none: done already.
Committed edit(StoreParts& store, const std::function<std::optional<Patch>(const Version&)>& make);
// Slots that patches freed, ascending.
std::vector<std::int64_t> free_slots_of(const Version& version);

}  // namespace memlayers::pool
