// SPDX-License-Identifier: Apache-2.0
#include "train/replica_gradients.h"

#include <torch/types.h>

#include <algorithm>
#include <cstring>

#include "dist/collectives.h"

namespace memlayers::train {
namespace {

struct Head {
  std::int64_t tokens, slots_a_token, columns, first_column;
};

class Writer {
 public:
  void add(const void* data, std::size_t bytes) {
    const auto* from = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), from, from + bytes);
  }
  void add(const at::Tensor& tensor) {
    const at::Tensor numbers = tensor.contiguous();
    add(numbers.const_data_ptr(), numbers.nbytes());
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class Reader {
 public:
  explicit Reader(const Message& message) : rest_(message.bytes()) {}
  bool is_at_end() const { return rest_.empty(); }
  void take(void* data, std::size_t bytes) {
    TORCH_INTERNAL_ASSERT(bytes <= rest_.size());  // both sides are this file
    if (bytes > 0) std::memcpy(data, rest_.data(), bytes);
    rest_ = rest_.subspan(bytes);
  }
  at::Tensor take(at::IntArrayRef sizes, at::ScalarType type) {
    at::Tensor tensor = at::empty(sizes, type);
    take(tensor.mutable_data_ptr(), tensor.nbytes());
    return tensor;
  }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace

std::vector<FactoredGradient> of_all_replicas(Communicator& replicas,
                                              const std::vector<FactoredGradient>& own) {
  Writer writer;
  for (const FactoredGradient& part : own) {
    const Head head{part.slots.size(0), part.slots.size(1), part.rows.size(1), part.first_column};
    writer.add(&head, sizeof head);
    writer.add(part.slots);
    writer.add(part.weights);
    writer.add(part.rows);
  }
  std::vector<FactoredGradient> all;
  for (const Message& message : dist::all_gather(replicas, writer.bytes())) {
    for (Reader reader(message); !reader.is_at_end();) {
      Head head;
      reader.take(&head, sizeof head);
      FactoredGradient part;
      part.slots = reader.take({head.tokens, head.slots_a_token}, at::kLong);
      part.weights = reader.take({head.tokens, head.slots_a_token}, at::kFloat);
      part.rows = reader.take({head.tokens, head.columns}, at::kFloat);
      part.first_column = head.first_column;
      all.push_back(std::move(part));
    }
  }
  return all;
}

}  // namespace memlayers::train
