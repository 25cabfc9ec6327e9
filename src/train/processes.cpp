// SPDX-License-Identifier: Apache-2.0
#include "train/processes.h"

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "dist/collectives.h"
#include "memlayers/error.h"

namespace memlayers::train {

Processes::Processes(std::shared_ptr<Communicator> world, const ParallelConfig& config)
    : world_(std::move(world)) {
  if (count() % config.groups != 0) {
    throw CommonError("[parallel] groups: expected a number that divides the " +
                      std::to_string(count()) + " processes of the run, got " +
                      std::to_string(config.groups));
  }
  world_->set_deadline(Communicator::Seconds(config.timeout_s));
  const int groups = static_cast<int>(config.groups), size = count() / groups;
  const int rank = world_->rank(), first = rank / size * size;
  std::vector<int> members, replicas;
  for (int member = first; member < first + size; ++member) members.push_back(member);
  for (int replica = rank % size; replica < count(); replica += size) replicas.push_back(replica);
  group_.processes = world_->part(members);
  const auto others = world_->part(replicas);
  if (groups > 1) group_.replicas = others;
  if (config.split == PoolSplitKind::kColumns) group_.split = PoolSplit{size, 1};
  if (config.split == PoolSplitKind::kRows) group_.split = PoolSplit{1, size};
}

Processes Processes::alone() { return {dist::alone(), ParallelConfig{}}; }

text::Batch Processes::share_of(const text::Batch& batch) const {
  const std::int64_t rank = world_->rank();
  const std::int64_t first = rank * batch.rows / count(), last = (rank + 1) * batch.rows / count();
  text::Batch share;
  share.rows = last - first;
  share.length = batch.length;
  const auto begin = first * batch.length, end = last * batch.length;
  share.input.assign(batch.input.begin() + begin, batch.input.begin() + end);
  share.target.assign(batch.target.begin() + begin, batch.target.begin() + end);
  if (!batch.document_begin.empty()) {
    share.document_begin.assign(batch.document_begin.begin() + begin,
                                batch.document_begin.begin() + end);
  }
  share.target_tokens = static_cast<std::int64_t>(share.target.size()) -
                        std::ranges::count(share.target, text::kIgnored);
  return share;
}

std::vector<Processes::Share> Processes::shares_of(const std::vector<text::Batch>& batches) const {
  std::vector<Share> shares;
  const auto processes = static_cast<std::size_t>(count());
  if (batches.size() % processes != 0) {
    for (const text::Batch& batch : batches) {
      shares.push_back({share_of(batch), batch.target_tokens > 0});
    }
    return shares;
  }
  const std::size_t each = batches.size() / processes;
  for (std::size_t i = 0; i < each; ++i) {
    bool has_targets = false;
    for (std::size_t p = 0; p < processes; ++p) {
      has_targets = has_targets || batches[p * each + i].target_tokens > 0;
    }
    const text::Batch& own = batches[static_cast<std::size_t>(world_->rank()) * each + i];
    text::Batch none;  // what a process alone passes over
    none.length = own.length;
    shares.push_back({own.target_tokens > 0 ? own : none, has_targets});
  }
  return shares;
}

int Processes::on_this_host() const {
  int found = 0;
  for (int rank = 0; rank < count(); ++rank) {
    if (world_->host(rank) == world_->host(world_->rank())) ++found;
  }
  return found;
}

bool Processes::any(bool says) const {
  double count[] = {says ? 1.0 : 0.0};
  dist::sum_pairwise(*world_, count);
  return count[0] > 0;
}

void Processes::together(const std::function<void()>& work) const {
  if (is_alone()) return work();
  std::string error;
  try {
    work();
  } catch (const Error& failed) {
    error = failed.what();
  }
  const auto all = dist::all_gather(*world_, std::as_bytes(std::span(error)));
  for (int rank = 0; rank < count(); ++rank) {
    const Message& message = all[static_cast<std::size_t>(rank)];
    if (message.size == 0) continue;
    std::string who =
        rank == 0 ? "" : "rank " + std::to_string(rank) + " on " + world_->host(rank) + ": ";
    throw CommonError(who.append(reinterpret_cast<const char*>(message.data.get()), message.size));
  }
}

LongWait::LongWait(const Processes& processes)
    : world_(processes.world()), before_(world_.deadline()) {
  world_.set_deadline(std::max(before_, Communicator::Seconds(24 * 3600)));
}

LongWait::~LongWait() { world_.set_deadline(before_); }

}  // namespace memlayers::train
