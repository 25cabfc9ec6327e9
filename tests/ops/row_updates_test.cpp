// SPDX-License-Identifier: Apache-2.0
// Grouping and row updates as operators: the kernels' against their plain versions.
#include "op_testing.h"
#include "ops/torch/operators.h"

namespace memlayers::ops {
namespace {

using at::Tensor;
using testing::expect_near;
using testing::normal;

constexpr std::int64_t kSlots = 50, kWidth = 18;

struct Gradient {
  std::vector<Tensor> slots, weights, rows;
  std::vector<std::int64_t> first_columns = {0, 7, 0};
  Tensor touched, begin, entries;

  Gradient() {
    for (const auto& [i, width] :
         {std::pair{1, kWidth}, {2, std::int64_t{11}}, {3, std::int64_t{7}}}) {
      slots.push_back(testing::random_slots({4, 5}, kSlots / 2, 10 + i));
      weights.push_back(normal({4, 5}, 20 + i));
      rows.push_back(normal({4, width}, 30 + i));
    }
    std::tie(touched, begin, entries) = cpu::group(slots, kSlots);
  }
};

struct Tables {
  Tensor values, wide, wide_square, one, steps;
  std::optional<Tensor> master;

  Tables(at::ScalarType type, bool has_master)
      : values(normal({kSlots, kWidth}, 1).to(type)),
        wide(normal({kSlots, kWidth}, 2)),
        wide_square(normal({kSlots, kWidth}, 3).square()),
        one(normal({kSlots}, 4).square()),
        steps(at::arange(kSlots, at::kInt)) {
    if (has_master) master = values.to(at::kFloat);
  }
};

// step(tables, cpu or composite) leaves the same tables, to float32 rounding.
template <class Step>
void expect_same_step(const Step& step) {
  for (const auto& [type, has_master] :
       {std::pair{at::kFloat, false}, {at::kBFloat16, false}, {at::kBFloat16, true}}) {
    Tables ours(type, has_master), plain(type, has_master);
    step(ours, true);
    step(plain, false);
    // Sums in another order may fall to either side of where bfloat16 is rounded.
    const double tolerance = type == at::kFloat ? 1e-5 : 0x1p-6;
    expect_near(ours.values.to(at::kFloat), plain.values.to(at::kFloat), tolerance);
    if (type == at::kBFloat16 && !has_master) {
      EXPECT_LT((ours.values != plain.values).sum().item<std::int64_t>(), 5);
    }
    expect_near(ours.wide, plain.wide, 1e-5);
    expect_near(ours.wide_square, plain.wide_square, 1e-5);
    expect_near(ours.one, plain.one, 1e-5);
    EXPECT_TRUE(torch::equal(ours.steps, plain.steps));
    if (has_master) expect_near(*ours.master, *plain.master, 1e-5);
  }
}

TEST(RowUpdates, GroupingIsThatOfThePlainVersion) {
  const Gradient g;
  const auto [touched, begin, entries] = composite::group(g.slots, kSlots);
  EXPECT_TRUE(torch::equal(touched, g.touched));
  EXPECT_TRUE(torch::equal(begin, g.begin));
  EXPECT_TRUE(torch::equal(entries, g.entries));
  const auto squares = [&](auto* f) {
    return f(g.weights, g.rows, g.first_columns, g.touched, g.begin, g.entries, kWidth);
  };
  expect_near(squares(&cpu::row_squares), squares(&composite::row_squares), 1e-4);
}

TEST(RowUpdates, StepsAreThoseOfThePlainVersions) {
  const Gradient g;
  for (double beta1 : {0.9, 0.0}) {
    expect_same_step([&](Tables& t, bool is_ours) {
      (is_ours ? cpu::update_adamw : composite::update_adamw)(
          t.values, t.wide, t.wide_square, t.steps, t.master, g.weights, g.rows, g.first_columns,
          g.touched, g.begin, g.entries, 0.01, beta1, 0.95, 1e-3, 0.1, 0.5, 7);
    });
    expect_same_step([&](Tables& t, bool is_ours) {
      (is_ours ? cpu::update_rowwise_adamw : composite::update_rowwise_adamw)(
          t.values, beta1 == 0 ? std::nullopt : std::optional(t.wide), t.one, t.steps, t.master,
          g.weights, g.rows, g.first_columns, g.touched, g.begin, g.entries, 0.01, beta1, 0.95,
          1e-3, 0.1, 0.5, 7);
    });
  }
  expect_same_step([&](Tables& t, bool is_ours) {
    (is_ours ? cpu::update_rowwise_adagrad : composite::update_rowwise_adagrad)(
        t.values, t.one, t.master, g.weights, g.rows, g.first_columns, g.touched, g.begin,
        g.entries, 0.01, 1e-3, 0.1, 0.5, 7);
  });
  expect_same_step([&](Tables& t, bool is_ours) {
    (is_ours ? cpu::update_sgd : composite::update_sgd)(t.values, t.master, g.weights, g.rows,
                                                        g.first_columns, g.touched, g.begin,
                                                        g.entries, 0.01, 0.1, 0.5, 7);
  });
}

TEST(RowUpdates, WhatGroupingDidNotGiveIsRefused) {
  const Gradient g;
  Tables t(at::kFloat, false);
  const auto step = [&](const Tensor& touched, const Tensor& begin, const Tensor& entries) {
    cpu::update_sgd(t.values, t.master, g.weights, g.rows, g.first_columns, touched, begin, entries,
                    0.01, 0, 1, 0);
  };
  EXPECT_THROW(step(g.touched.flip(0), g.begin, g.entries), c10::ValueError);
  EXPECT_THROW(step(g.touched, g.begin.flip(0), g.entries), c10::ValueError);
  EXPECT_THROW(step(g.touched, g.begin + 1, g.entries), c10::ValueError);
  EXPECT_THROW(step(g.touched, g.begin, g.entries + 1), c10::IndexError);
  EXPECT_THROW(step(g.touched + kSlots, g.begin, g.entries), c10::IndexError);
}

}  // namespace
}  // namespace memlayers::ops
