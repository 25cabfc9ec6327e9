// SPDX-License-Identifier: Apache-2.0
// What all processes of a communicator do together, made of its messages: so each wait has its
// deadline, and an error names the process that did not come. Every process calls the same
// functions in the same order; tags below kFirstFreeTag are theirs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memlayers/parallel.h"

namespace memlayers::dist {

constexpr int kFirstFreeTag = 16;

void barrier(Communicator& group);
// Every process's bytes, by rank.
std::vector<Message> all_gather(Communicator& group, std::span<const std::byte> bytes);
// What rank `from` has.
std::string broadcast(Communicator& group, const std::string& text, int from = 0);
// The sums over all processes, number by number, in the order of the ranks: the same bits in all.
void sum_in_order(Communicator& group, std::span<double> numbers);

}  // namespace memlayers::dist
