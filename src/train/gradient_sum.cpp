// SPDX-License-Identifier: Apache-2.0
#include "train/gradient_sum.h"

#include <algorithm>

#include "dist/collectives.h"

namespace memlayers::train {
namespace {

std::span<std::byte> bytes_of(const at::Tensor& tensor) {  // contiguous
  return {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()};
}

}  // namespace

struct GradientSum::Bucket {
  std::size_t number = 0;
  std::vector<at::Tensor> parameters;
  std::size_t missing = 0;   // gradients that backward has still to make
  std::int64_t numbers = 0;  // of all parameters
  at::Tensor own, total;     // [processes, numbers of a piece], filled up with zeros
  at::Tensor others;         // the same shape: what each process has of this one's piece
  std::vector<std::unique_ptr<Transfer>> pieces;  // by rank: of this process's piece
  Transfers sent, totals;
  bool is_added_up = false;
};

// Called when backward has added up all that makes a parameter's gradient.
class GradientSum::Hook final : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(GradientSum& sum, std::size_t bucket) : sum_(sum), bucket_(bucket) {}
  void operator()(const at::Tensor& /*parameter*/) override { sum_.ready(bucket_); }

 private:
  GradientSum& sum_;
  std::size_t bucket_;
};

GradientSum::GradientSum(std::shared_ptr<Communicator> world,
                         const std::vector<std::pair<std::string, at::Tensor>>& parameters,
                         const Options& options)
    : world_(std::move(world)) {
  if (world_->size() == 1) return;
  const auto wire = at::TensorOptions().dtype(options.type);
  const auto most = static_cast<std::int64_t>(options.bucket_mb * 1e6 /
                                              static_cast<double>(c10::elementSize(options.type)));
  for (auto it = parameters.rbegin(); it != parameters.rend(); ++it) {  // as backward comes by
    const at::Tensor& parameter = it->second;
    if (buckets_.empty() || buckets_.back()->numbers + parameter.numel() > most) {
      buckets_.push_back(std::make_unique<Bucket>());
      buckets_.back()->number = buckets_.size() - 1;
    }
    Bucket& bucket = *buckets_.back();
    bucket.parameters.push_back(parameter);
    bucket.numbers += parameter.numel();
    parameters_.push_back(parameter);
    torch::autograd::impl::set_post_acc_grad_hooks(parameter,
                                                   std::make_unique<Hook>(*this, bucket.number));
  }
  for (const auto& bucket : buckets_) {
    const std::int64_t piece = (bucket->numbers + world_->size() - 1) / world_->size();
    bucket->own = at::zeros({world_->size(), piece}, wire);
    bucket->total = at::zeros_like(bucket->own);
    bucket->others = at::zeros_like(bucket->own);
    bucket->pieces.resize(static_cast<std::size_t>(world_->size()));
  }
}

GradientSum::~GradientSum() {
  for (const at::Tensor& parameter : parameters_) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
  }
}

void GradientSum::begin(PairwiseGradients& gradients) {
  for (const auto& bucket : buckets_) {
    bucket->missing = bucket->parameters.size();
    bucket->is_added_up = false;
  }
  started_ = 0;
  gradients_ = &gradients;
  is_open_ = true;
}

void GradientSum::ready(std::size_t number) {
  if (!is_open_) return;
  --buckets_[number]->missing;
  // In the order in which all processes send them.
  while (started_ < buckets_.size() && buckets_[started_]->missing == 0) {
    start(*buckets_[started_++]);
  }
  for (std::size_t b = 0; b < started_; ++b) {
    if (!add_up(*buckets_[b], /*may_wait=*/false)) break;
  }
}

int GradientSum::tag(const Bucket& bucket, int phase) const {
  return dist::kFirstFreeTag + static_cast<int>(bucket.number) * 2 + phase;
}

void GradientSum::start(Bucket& bucket) {
  const torch::NoGradGuard no_grad;
  at::Tensor flat = bucket.own.flatten();
  std::int64_t at = 0;
  for (const at::Tensor& parameter : bucket.parameters) {
    at::Tensor place = flat.narrow(0, at, parameter.numel());
    gradients_->finish(parameter);
    if (parameter.grad().defined()) {
      place.copy_(parameter.grad().flatten());
    } else {
      place.zero_();
    }
    at += parameter.numel();
  }
  const int size = world_->size(), rank = world_->rank();
  for (int i = 1; i < size; ++i) {
    const int from = (rank + size - i) % size, to = (rank + i) % size;
    bucket.pieces[static_cast<std::size_t>(from)] =
        world_->receive(from, tag(bucket, 0), bytes_of(bucket.others[from]), nullptr);
    bucket.sent.push_back(world_->send(to, tag(bucket, 0), bytes_of(bucket.own[to]), nullptr));
  }
}

// Adds up this process's piece and sends the sum to all, once what the others have is there.
bool GradientSum::add_up(Bucket& bucket, bool may_wait) {
  if (bucket.is_added_up) return true;
  for (const auto& piece : bucket.pieces) {
    if (piece == nullptr) continue;
    if (may_wait) piece->wait();
    if (!piece->done()) return false;
  }
  const torch::NoGradGuard no_grad;
  const int size = world_->size(), rank = world_->rank();
  std::vector<at::Tensor> parts;  // changed below, when nobody needs them any more
  for (int from = 0; from < size; ++from) {
    parts.push_back((from == rank ? bucket.own : bucket.others)[from].to(at::kFloat));
  }
  bucket.total[rank].copy_(dist::pairwise_sum(
      std::move(parts), [](const at::Tensor& a, const at::Tensor& b) { return a.add_(b); }));
  for (int i = 1; i < size; ++i) {
    const int from = (rank + size - i) % size, to = (rank + i) % size;
    bucket.totals.push_back(
        world_->receive(from, tag(bucket, 1), bytes_of(bucket.total[from]), nullptr));
    bucket.sent.push_back(world_->send(to, tag(bucket, 1), bytes_of(bucket.total[rank]), nullptr));
  }
  bucket.is_added_up = true;
  return true;
}

void GradientSum::finish() {
  is_open_ = false;
  if (world_->size() == 1) {
    gradients_->finish();
    return;
  }
  // What has no gradient on this process may have one on another.
  while (started_ < buckets_.size()) start(*buckets_[started_++]);
  for (const auto& bucket : buckets_) add_up(*bucket, /*may_wait=*/true);
  const torch::NoGradGuard no_grad;
  for (const auto& bucket : buckets_) {
    wait_all(bucket->totals);
    wait_all(bucket->sent);
    const at::Tensor flat = bucket->total.flatten();
    std::int64_t at = 0;
    for (at::Tensor& parameter : bucket->parameters) {
      const at::Tensor sum = flat.narrow(0, at, parameter.numel()).view_as(parameter);
      if (parameter.grad().defined()) {
        parameter.mutable_grad().copy_(sum);
      } else {
        parameter.mutable_grad() = sum.to(parameter.scalar_type(), false, /*copy=*/true);
      }
      at += parameter.numel();
    }
  }
}

}  // namespace memlayers::train
