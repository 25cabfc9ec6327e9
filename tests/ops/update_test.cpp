// SPDX-License-Identifier: Apache-2.0
#include "memlayers/row_updates.h"

#include <torch/optim/adamw.h>

#include "ops/op_testing.h"
#include "ops/update/row_sums.h"

namespace memlayers {
namespace {

using testing::expect_near;
using testing::normal;
using testing::random_slots;

constexpr std::int64_t kSlots = 60, kWidth = 19;

RowState make_state(bool has_master) {
  RowState state;
  state.exp_avg = torch::zeros({kSlots, kWidth});
  state.exp_avg_sq = torch::zeros({kSlots, kWidth});
  state.steps = torch::zeros({kSlots}, torch::kInt);
  if (has_master) state.master = torch::zeros({kSlots, kWidth});
  return state;
}

std::vector<FactoredGradient> make_gradient(std::uint64_t seed) {
  return {
      {random_slots({8, 3}, 25, seed), normal({8, 3}, seed + 1), normal({8, kWidth}, seed + 2), 0},
      {random_slots({5, 2}, 25, seed + 3), normal({5, 2}, seed + 4), normal({5, 7}, seed + 5), 12}};
}

GroupedGradient grouped(std::uint64_t seed) { return group(make_gradient(seed), kSlots, kWidth); }

TEST(Group, GradientOfEachRowIsTheSumOfItsContributions) {
  const auto parts = make_gradient(1);
  at::Tensor wanted = torch::zeros({kSlots, kWidth});
  for (const FactoredGradient& part : parts) {
    for (std::int64_t t = 0; t < part.slots.size(0); ++t) {
      for (std::int64_t j = 0; j < part.slots.size(1); ++j) {
        wanted[part.slots[t][j].item<int64_t>()]
            .narrow(0, part.first_column, part.rows.size(1))
            .add_(part.rows[t] * part.weights[t][j]);
      }
    }
  }
  expect_near(to_dense(parts, kSlots, kWidth), wanted, testing::sum_tolerance(30, 10));
  EXPECT_NEAR(norm(grouped(1), kWidth), wanted.norm().item<double>(), 1e-4);
}

constexpr std::int64_t kWhole = 96, kHalf = 32;

// Rows of one entry and of many, in parts like PEER's: columns below kHalf, and the others with
// other weights.
std::vector<FactoredGradient> gradient_in_halves(at::IntArrayRef read, std::int64_t slots,
                                                 std::uint64_t batches) {
  std::vector<FactoredGradient> parts;
  for (std::uint64_t i = 0; i < batches; ++i) {
    const at::Tensor chosen = random_slots(read, slots, i), weights = normal(read, i + 10);
    parts.push_back({chosen, weights, normal({read[0], kHalf}, i + 20), 0});
    parts.push_back({chosen, weights * 2, normal({read[0], kWhole - kHalf}, i + 30), kHalf});
  }
  return parts;
}

TEST(Group, ABlockOfColumnsHasTheSameNormWithoutTheOthers) {
  const std::int64_t width = kWhole, slots = 600;
  const std::vector<FactoredGradient> parts = gradient_in_halves({100, 3}, slots, 4);
  const std::vector<std::int64_t> all{0, 32, 64, 96};
  const GroupedGradient whole = group(parts, slots, width);
  const std::vector<double> blocks = ops::block_squares(whole, all);
  const at::Tensor dense = to_dense(parts, slots, width).to(at::kDouble);
  for (std::size_t b = 0; b < 3; ++b) {
    const double wanted = dense.slice(1, all[b], all[b + 1]).square().sum().item<double>();
    EXPECT_NEAR(blocks[b], wanted, 1e-6 * wanted);
    std::vector<FactoredGradient> alone;
    for (const FactoredGradient& part : parts) {
      const std::int64_t first = all[b] - part.first_column;
      if (first < 0 || first >= part.rows.size(1)) continue;
      alone.push_back(
          {part.slots, part.weights, part.rows.slice(1, first, first + 32).contiguous(), 0});
    }
    EXPECT_EQ(ops::block_squares(group(alone, slots, 32), std::vector<std::int64_t>{0, 32})[0],
              blocks[b]);
  }
  const double sum = blocks[0] + blocks[1] + blocks[2];
  EXPECT_NEAR(squared_norm(whole, width), sum, 1e-8 * sum);
}

TEST(Group, TakesTensorsThatAreNotContiguous) {
  const std::vector<FactoredGradient> parts = make_gradient(1);
  std::vector<FactoredGradient> parts2 = parts;
  for (FactoredGradient& part : parts2) {
    for (at::Tensor* tensor : {&part.slots, &part.weights, &part.rows}) {
      *tensor = testing::column_by_column(*tensor);
      ASSERT_FALSE(tensor->is_contiguous());
    }
  }
  const GroupedGradient wanted = group(parts, kSlots, kWidth), got = group(parts2, kSlots, kWidth);
  EXPECT_TRUE(torch::equal(got.slots, wanted.slots));
  EXPECT_TRUE(torch::equal(got.begin, wanted.begin));
  EXPECT_TRUE(torch::equal(got.entries, wanted.entries));
  EXPECT_TRUE(torch::equal(row_squares(got, kWidth), row_squares(wanted, kWidth)));
  EXPECT_TRUE(torch::equal(to_dense(parts2, kSlots, kWidth), to_dense(parts, kSlots, kWidth)));
}

TEST(Group, GivesTheSameNormsForAnyNumberOfThreads) {
  const std::int64_t width = kWhole, slots = 4000;  // rows enough for three threads
  const std::vector<FactoredGradient> parts = gradient_in_halves({600, 4}, slots, 2);
  const GroupedGradient gradient = group(parts, slots, width);
  ASSERT_GT(gradient.slots.numel(), 2000);
  testing::expect_same_bits_for_any_threads([&] { return row_squares(gradient, width); });
  testing::expect_same_bits_for_any_threads([&] {
    const std::vector<std::int64_t> begins{0, 32, 64, 96};
    return torch::tensor(ops::block_squares(gradient, begins), torch::kDouble);
  });
}

TEST(Group, OrdersEntriesBySlotAndKeepsTheirOrder) {
  // More slots than one digit of the radix sort holds.
  const std::int64_t slots_in_pool = 5'000'000;
  const at::Tensor slots = random_slots({1000, 4}, slots_in_pool, 5);
  const GroupedGradient g =
      group({{slots, torch::ones({1000, 4}), torch::ones({1000, 1}), 0}}, slots_in_pool, 1);
  const at::Tensor ordered = slots.flatten().index_select(0, g.entries);
  EXPECT_TRUE((ordered.slice(0, 1) >= ordered.slice(0, 0, -1)).all().item<bool>());
  EXPECT_TRUE(torch::equal(std::get<0>(torch::_unique(slots)), g.slots));
  const at::Tensor same = ordered.slice(0, 1) == ordered.slice(0, 0, -1);
  const at::Tensor later = g.entries.slice(0, 1) > g.entries.slice(0, 0, -1);
  EXPECT_TRUE((~same | later).all().item<bool>());
}

TEST(UpdateAdamW, TouchedRowsMoveAsUnderTorchsAdamW) {
  at::Tensor values = normal({kSlots, kWidth}, 9);
  const at::Tensor before = values.clone();
  // A row that is touched in every step sees what torch's AdamW computes for it.
  at::Tensor parameter = values.clone().requires_grad_();
  torch::optim::AdamW adamw(
      {parameter}, torch::optim::AdamWOptions(0.01).betas({0.9, 0.95}).eps(1e-8).weight_decay(0.1));
  RowState state = make_state(false);
  at::Tensor always = torch::ones({kSlots}, torch::kBool),
             ever = torch::zeros({kSlots}, torch::kBool);
  for (std::uint64_t step = 0; step < 5; ++step) {
    const GroupedGradient g = grouped(step % 2 == 0 ? 1 : 100);
    const at::Tensor touched = torch::zeros({kSlots}, torch::kBool).index_fill(0, g.slots, true);
    always = always & touched;
    ever = ever | touched;
    update_adamw(
        values, state, g,
        {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1, .gradient_scale = 0.5});
    parameter.mutable_grad() = to_dense(g.contributions, kSlots, kWidth) * 0.5;
    adamw.step();
  }
  ASSERT_GT(always.sum().item<int64_t>(), 3);
  ASSERT_LT(ever.sum().item<int64_t>(), kSlots);
  const at::Tensor mask = always.unsqueeze(1);
  expect_near(values.masked_select(mask), parameter.detach().masked_select(mask), 1e-6);
  // Rows never touched keep their bits and have no state.
  const at::Tensor untouched = (~ever).nonzero().squeeze(1);
  EXPECT_TRUE(torch::equal(values.index_select(0, untouched), before.index_select(0, untouched)));
  EXPECT_EQ(state.exp_avg.index_select(0, untouched).abs().sum().item<float>(), 0);
  EXPECT_EQ(state.steps.index_select(0, untouched).sum().item<int64_t>(), 0);
}

TEST(UpdateAdamW, MasterCopyKeepsWhatBfloat16Loses) {
  at::Tensor exact = normal({kSlots, kWidth}, 9).to(torch::kBFloat16).to(torch::kFloat);
  at::Tensor rows = exact.to(torch::kBFloat16);
  RowState exact_state = make_state(false), state = make_state(true);
  state.master.copy_(rows);
  for (int step = 0; step < 20; ++step) {
    update_adamw(exact, exact_state, grouped(1), {.lr = 1e-4});
    update_adamw(rows, state, grouped(1), {.lr = 1e-4});
  }
  EXPECT_TRUE(torch::equal(state.master, exact));
  EXPECT_TRUE(torch::equal(rows, exact.to(torch::kBFloat16)));
}

TEST(UpdateAdamW, StochasticRoundingKeepsSmallStepsOnAverage) {
  // One step is far below half a unit in the last place of 1.0 in bfloat16 (2^-8): rounding to
  // nearest would never move. The mean over rows x columns x steps moves as in float32.
  const std::int64_t slots = 400, width = 64;
  at::Tensor rows = torch::ones({slots, width}, torch::kBFloat16);
  RowState state;
  const GroupedGradient g = group({{torch::arange(slots).unsqueeze(1), torch::ones({slots, 1}),
                                    torch::ones({slots, width}), 0}},
                                  slots, width);
  const int steps = 20;
  for (int step = 0; step < steps; ++step) {
    update_sgd(rows, state, g, {.lr = 1e-4, .rounding_seed = static_cast<std::uint64_t>(step)});
  }
  const double moved = 1 - rows.to(torch::kDouble).mean().item<double>();
  // A rounding errs by less than 2^-8; the mean over n independent ones by about 2^-8 / sqrt(n).
  const double bound = 5 * std::pow(2, -8) * std::sqrt(steps) / std::sqrt(slots * width);
  EXPECT_NEAR(moved, steps * 1e-4, bound);
}

TEST(UpdateSgd, SubtractsTheScaledGradient) {
  at::Tensor values = normal({kSlots, kWidth}, 9);
  const at::Tensor wanted = values - 0.1 * 0.5 * to_dense(make_gradient(1), kSlots, kWidth);
  RowState state;
  update_sgd(values, state, grouped(1), {.lr = 0.1, .gradient_scale = 0.5});
  expect_near(values, wanted, 1e-5);
}

// Row-wise AdamW and Adagrad in plain ATen operations, in float64, on the rows that `touched`
// marks.
struct PlainRowwise {
  PlainRowwise(const at::Tensor& start, RowAdamWParameters parameters)
      : p(parameters),
        values(start.to(torch::kDouble)),
        m(torch::zeros_like(values)),
        v(torch::zeros({kSlots, 1}, torch::kDouble)),
        count(torch::zeros({kSlots, 1}, torch::kDouble)) {}

  at::Tensor begin(const GroupedGradient& grouped) {
    touched = torch::zeros({kSlots, 1}, torch::kBool).index_fill(0, grouped.slots, true);
    return to_dense(grouped.contributions, kSlots, kWidth).to(torch::kDouble) * p.gradient_scale;
  }
  void finish(const at::Tensor& change) {
    values = torch::where(touched, (1 - p.lr * p.weight_decay) * values - change, values);
  }
  void adamw(const GroupedGradient& grouped) {
    const at::Tensor g = begin(grouped);
    count = count + touched;
    m = torch::where(touched, p.beta1 * m + (1 - p.beta1) * g, m);
    v = torch::where(touched, p.beta2 * v + (1 - p.beta2) * g.square().mean(1, true), v);
    const at::Tensor corrected = v / (1 - torch::pow(p.beta2, count));
    finish(p.lr * m / (1 - torch::pow(p.beta1, count)) / (corrected.sqrt() + p.eps));
  }
  void adagrad(const GroupedGradient& grouped) {
    const at::Tensor g = begin(grouped);
    v = v + g.square().mean(1, true);
    finish(p.lr * g / (v.sqrt() + p.eps));
  }

  RowAdamWParameters p;
  at::Tensor values, m, v, count, touched;
};

const RowAdamWParameters kRowwise{.lr = 0.02,
                                  .beta1 = 0.8,
                                  .beta2 = 0.9,
                                  .eps = 1e-3,
                                  .weight_decay = 0.1,
                                  .gradient_scale = 0.5};

RowState rowwise_state(bool has_average, bool has_steps) {
  RowState state;
  if (has_average) state.exp_avg = torch::zeros({kSlots, kWidth});
  state.exp_avg_sq = torch::zeros({kSlots});
  if (has_steps) state.steps = torch::zeros({kSlots}, torch::kInt);
  return state;
}

// Six steps that touch other rows each, and some rows never, whose bits stay.
template <class Ours, class Plain>
void expect_as_plain(RowAdamWParameters p, RowState state, const Ours& ours, const Plain& plain) {
  at::Tensor values = normal({kSlots, kWidth}, 9);
  const at::Tensor before = values.clone();
  PlainRowwise wanted(values, p);
  at::Tensor ever = torch::zeros({kSlots}, torch::kBool);
  for (std::uint64_t step = 0; step < 6; ++step) {
    const GroupedGradient g = grouped(10 * step);
    ours(values, state, g, p);
    (wanted.*plain)(g);
    ever.index_fill_(0, g.slots, true);
  }
  // Six steps of one formula in float32 and in float64: some tens of epsilons of numbers below 4.
  expect_near(values.to(torch::kDouble), wanted.values, 5e-6);
  expect_near(state.exp_avg_sq.to(torch::kDouble).unsqueeze(1) * ever.unsqueeze(1), wanted.v, 1e-5);
  const at::Tensor untouched = (~ever).nonzero().squeeze(1);
  ASSERT_GT(untouched.numel(), 20);
  EXPECT_TRUE(torch::equal(values.index_select(0, untouched), before.index_select(0, untouched)));
  EXPECT_EQ(state.exp_avg_sq.index_select(0, untouched).abs().sum().item<float>(), 0);
}

TEST(UpdateRowwiseAdamW, EqualsItsPlainVersion) {
  expect_as_plain(kRowwise, rowwise_state(true, true), update_rowwise_adamw, &PlainRowwise::adamw);
}

TEST(UpdateRowwiseAdamW, NeedsNoAverageWithoutMomentum) {
  RowAdamWParameters p = kRowwise;
  p.beta1 = 0;
  expect_as_plain(p, rowwise_state(false, true), update_rowwise_adamw, &PlainRowwise::adamw);
}

TEST(UpdateRowwiseAdagrad, EqualsItsPlainVersion) {
  expect_as_plain(kRowwise, rowwise_state(false, false), update_rowwise_adagrad,
                  &PlainRowwise::adagrad);
}

TEST(UpdateRowwise, AppliesStepsToAMasterAndRoundsTheRow) {
  for (const auto& update : {update_rowwise_adamw, update_rowwise_adagrad}) {
    at::Tensor exact = normal({kSlots, kWidth}, 9).to(torch::kBFloat16).to(torch::kFloat);
    at::Tensor rows = exact.to(torch::kBFloat16);
    RowState exact_state = rowwise_state(true, true), state = rowwise_state(true, true);
    state.master = exact.clone();
    for (int step = 0; step < 5; ++step) {
      update(exact, exact_state, grouped(1), kRowwise);
      update(rows, state, grouped(1), kRowwise);
    }
    EXPECT_TRUE(torch::equal(state.master, exact));
    EXPECT_TRUE(torch::equal(rows, exact.to(torch::kBFloat16)));
  }
}

TEST(UpdateRowwise, GivesTheSameBitsForAnyNumberOfThreads) {
  const std::vector<FactoredGradient> parts{
      {random_slots({400, 16}, kSlots, 1), normal({400, 16}, 2), normal({400, kWidth}, 3), 0}};
  for (const auto& update : {update_rowwise_adamw, update_rowwise_adagrad, update_sgd}) {
    testing::expect_same_bits_for_any_threads([&] {
      at::Tensor values = normal({kSlots, kWidth}, 9).to(torch::kBFloat16);
      RowState state = rowwise_state(true, true);
      update(values, state, group(parts, kSlots, kWidth), kRowwise);
      return torch::cat(
          {values.to(torch::kFloat), state.exp_avg_sq.unsqueeze(1).expand_as(values)});
    });
  }
}

TEST(UpdateRowwise, RefusesTablesThatDoNotFit) {
  at::Tensor values = normal({kSlots, kWidth}, 9);
  RowState state = rowwise_state(false, true);
  EXPECT_THROW(update_rowwise_adamw(values, state, grouped(1), kRowwise), c10::ValueError);
  state = rowwise_state(true, false);
  EXPECT_THROW(update_rowwise_adamw(values, state, grouped(1), kRowwise), c10::ValueError);
  state = make_state(false);
  EXPECT_THROW(update_rowwise_adagrad(values, state, grouped(1), kRowwise), c10::ValueError);
  state.exp_avg_sq = torch::zeros({kSlots}, torch::kDouble);
  EXPECT_THROW(update_rowwise_adagrad(values, state, grouped(1), kRowwise), c10::TypeError);
}

TEST(UpdateRowwise, RefusesSquaresThatDoNotFit) {
  const at::Tensor before = normal({kSlots, kWidth}, 9);
  const GroupedGradient gradient = grouped(1);
  const at::Tensor squares = row_squares(gradient, kWidth);
  for (const at::Tensor& bad : {squares.slice(0, 1), squares.to(torch::kFloat)}) {
    RowAdamWParameters p = kRowwise;
    p.squares = bad;
    for (const auto& update : {update_rowwise_adamw, update_rowwise_adagrad}) {
      at::Tensor values = before.clone();
      RowState state = rowwise_state(true, true);
      EXPECT_THROW(update(values, state, gradient, p), c10::ValueError);
      EXPECT_TRUE(torch::equal(values, before));
      EXPECT_EQ(state.steps.sum().item<std::int64_t>(), 0);
    }
  }
}

TEST(UpdateAdamW, GivesTheSameBitsForAnyNumberOfThreads) {
  const std::vector<FactoredGradient> parts{
      {random_slots({400, 16}, kSlots, 1), normal({400, 16}, 2), normal({400, kWidth}, 3), 0}};
  testing::expect_same_bits_for_any_threads([&] {
    at::Tensor values = normal({kSlots, kWidth}, 9).to(torch::kBFloat16);
    RowState state = make_state(false);
    update_adamw(values, state, group(parts, kSlots, kWidth), {.rounding_seed = 4});
    return values;
  });
}

TEST(Update, NoGradientChangesNothing) {
  at::Tensor values = normal({kSlots, kWidth}, 9);
  const at::Tensor before = values.clone();
  RowState state = make_state(false);
  for (const GroupedGradient& none :
       {group({}, kSlots, kWidth),
        group(
            {{torch::zeros({0, 3}, torch::kLong), torch::zeros({0, 3}), torch::zeros({0, kWidth})},
             {torch::zeros({4, 0}, torch::kLong), torch::zeros({4, 0}), torch::ones({4, kWidth})}},
            kSlots, kWidth)}) {
    EXPECT_EQ(norm(none, kWidth), 0);
    update_adamw(values, state, none, {.weight_decay = 0.1});
    update_sgd(values, state, none, {.weight_decay = 0.1});
  }
  EXPECT_TRUE(torch::equal(values, before));
  EXPECT_EQ(state.steps.sum().item<int64_t>(), 0);
}

TEST(Update, RefusesWhatDoesNotFit) {
  at::Tensor values = normal({kSlots, kWidth}, 9);
  RowState state = make_state(false);
  EXPECT_THROW(group(make_gradient(1), 10, kWidth), c10::IndexError);
  EXPECT_THROW(group(make_gradient(1), kSlots, 15), c10::ValueError);
  RowState wrong = make_state(false);
  wrong.exp_avg = torch::zeros({kSlots, 3});
  EXPECT_THROW(update_adamw(values, wrong, grouped(1), {}), c10::ValueError);
  wrong = make_state(false);
  wrong.steps = torch::zeros({2 * kSlots}, torch::kInt).slice(0, 0, 2 * kSlots, 2);
  EXPECT_THROW(update_adamw(values, wrong, grouped(1), {}), c10::ValueError);
  // Grouped for rows that are wider.
  at::Tensor narrow = normal({kSlots, kWidth - 1}, 9);
  EXPECT_THROW(update_sgd(narrow, state, grouped(1), {}), c10::ValueError);
  EXPECT_THROW(norm(grouped(1), kWidth - 1), c10::ValueError);
  RowState master_of_float = make_state(true);
  EXPECT_THROW(update_adamw(values, master_of_float, grouped(1), {}), c10::ValueError);
  at::Tensor twisted = normal({kWidth, kSlots}, 9).t();
  EXPECT_THROW(update_adamw(twisted, state, grouped(1), {}), c10::ValueError);
  at::Tensor small = normal({5, kWidth}, 9);
  RowState small_state;
  EXPECT_THROW(update_sgd(small, small_state, grouped(1), {}), c10::IndexError);
}

}  // namespace
}  // namespace memlayers
