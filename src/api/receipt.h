// SPDX-License-Identifier: Apache-2.0
// Receipts: what an answer was made of, so that it can be made again and compared.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "api/answer.h"

namespace memlayers::api {

// XXH3-128 in hex of all choices: tokens, text and why they ended.
std::string answer_digest(std::span<const Choice> choices);

// {kind, weights, pool_version, request, answer}. The request is one for /v1/completions that says
// everything: tokens of the prompts, seed, the pool's version.
Json receipt_of(const Engine& engine, const Asked& asked, std::optional<std::uint64_t> pool_version,
                std::span<const Choice> choices);
inline constexpr const char* kReceiptKind = "memlayers-receipt-1";

}  // namespace memlayers::api
