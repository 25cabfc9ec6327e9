// SPDX-License-Identifier: Apache-2.0
// What all processes of a communicator do together, made of its messages: so each wait has its
// deadline, and an error names the process that did not come. Every process calls the same
// functions in the same order; tags below kFirstFreeTag are theirs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "memlayers/parallel.h"

namespace memlayers::dist {

constexpr int kFirstFreeTag = 16;

// This process as a world of its own, which has nobody to wait for.
std::shared_ptr<Communicator> alone();

void barrier(Communicator& group);
// Every process's bytes, by rank.
std::vector<Message> all_gather(Communicator& group, std::span<const std::byte> bytes);
// What rank `from` has.
std::string broadcast(Communicator& group, const std::string& text, int from = 0);
// The sum of at least one value: neighbours, then neighbours' sums, and so on; a last one without a
// neighbour stays as it is. So the sums of aligned blocks of 2^n values, summed, are the sum of
// all.
template <class Value, class Add>
Value pairwise_sum(std::vector<Value> values, const Add& add) {
  for (std::size_t step = 1; step < values.size(); step *= 2) {
    for (std::size_t i = 0; i + step < values.size(); i += 2 * step) {
      values[i] = add(std::move(values[i]), std::move(values[i + step]));
    }
  }
  return std::move(values[0]);
}
// pairwise_sum() over the processes, number by number, by rank: the same bits in all.
void sum_pairwise(Communicator& group, std::span<double> numbers);

}  // namespace memlayers::dist
