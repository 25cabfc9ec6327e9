// SPDX-License-Identifier: Apache-2.0
#include "dist/collectives.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace memlayers::dist {
namespace {

enum Tag : int { kGather, kBroadcast };

}  // namespace

std::vector<Message> all_gather(Communicator& group, std::span<const std::byte> bytes) {
  const int size = group.size(), rank = group.rank();
  std::vector<Message> messages(static_cast<std::size_t>(size));
  Message& own = messages[static_cast<std::size_t>(rank)];
  own = {std::make_shared_for_overwrite<std::byte[]>(bytes.size()), bytes.size()};
  std::ranges::copy(bytes, own.data.get());
  Transfers received, sent;
  for (int i = 1; i < size; ++i) received.push_back(group.receive((rank + i) % size, kGather));
  for (int i = 1; i < size; ++i) {
    sent.push_back(group.send((rank + i) % size, kGather, own.bytes(), own.data));
  }
  for (int i = 1; i < size; ++i) {
    Transfer& transfer = *received[static_cast<std::size_t>(i - 1)];
    transfer.wait();
    messages[static_cast<std::size_t>((rank + i) % size)] = transfer.take();
  }
  wait_all(sent);
  return messages;
}

void barrier(Communicator& group) { all_gather(group, {}); }

std::string broadcast(Communicator& group, const std::string& text, int from) {
  if (group.rank() != from) {
    const auto transfer = group.receive(from, kBroadcast);
    transfer->wait();
    const Message message = transfer->take();
    return {reinterpret_cast<const char*>(message.data.get()), message.size};
  }
  Transfers sent;
  for (int to = 0; to < group.size(); ++to) {
    if (to == from) continue;
    sent.push_back(group.send(to, kBroadcast, std::as_bytes(std::span(text)), nullptr));
  }
  wait_all(sent);
  return text;
}

void sum_pairwise(Communicator& group, std::span<double> numbers) {
  const std::vector<Message> all = all_gather(group, std::as_bytes(numbers));
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].size != numbers.size_bytes()) {
      throw Error("sum over processes: expected " + std::to_string(numbers.size()) +
                  " numbers of rank " + std::to_string(rank) + ", got " +
                  std::to_string(all[rank].size / sizeof(double)));
    }
  }
  std::vector<double> of_all(all.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    for (std::size_t rank = 0; rank < all.size(); ++rank) {
      std::memcpy(&of_all[rank], all[rank].data.get() + i * sizeof(double), sizeof(double));
    }
    numbers[i] = pairwise_sum(of_all, std::plus<>());
  }
}

}  // namespace memlayers::dist
