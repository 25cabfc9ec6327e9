// SPDX-License-Identifier: Apache-2.0
// What the benchmarks read: numbers below a count, drawn evenly or by Zipf's law.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <random>

namespace memlayers::bench {

struct Distribution {
  // Absent: uniform. Else the r-th most frequent number comes with a probability in proportion to
  // r^-exponent; which number is the r-th is a random permutation, so that frequent ones do not lie
  // side by side.
  std::optional<double> zipf_exponent = {};  // above 0
};

class IndexDraw {
 public:
  IndexDraw(std::int64_t count, Distribution distribution, std::uint64_t seed);
  at::Tensor draw(at::IntArrayRef shape);  // int64; other numbers each time

 private:
  double integral(double x) const;  // of the density x^-s
  double inverse_integral(double y) const;
  std::int64_t draw_rank();  // from 1

  std::int64_t count_;
  Distribution distribution_;
  std::mt19937_64 generator_;
  at::Tensor number_of_rank_;  // only for Zipf
  double from_ = 0, to_ = 0, accepted_below_ = 0;
};

// Vectors as a layer meets them. Uniform: each token has one of its own. Zipf: the tokens are words
// of a vocabulary with that law, so that some vectors, and with them the slots that they look up,
// come again and again.
class VectorDraw {
 public:
  VectorDraw(std::int64_t width, Distribution distribution, std::uint64_t seed);
  at::Tensor draw(std::int64_t tokens);  // [tokens, width] float32, normal

 private:
  std::int64_t width_;
  std::optional<IndexDraw> words_;
  at::Tensor vocabulary_;
  at::Generator generator_;
};

}  // namespace memlayers::bench
