// SPDX-License-Identifier: Apache-2.0
// Rows under an AdamW that is that of the whole pool, from Python (ops/update/lagging_rows.h).
#include "ops/update/lagging_rows.h"

#include <torch/custom_class.h>

#include <utility>
#include <vector>

#include "memlayers/row_updates.h"
#include "ops/torch/check.h"

namespace memlayers::python {
namespace {

using Tables = std::vector<at::Tensor>;  // exp_avg, exp_avg_sq, steps, and a master or none

RowState state_of(const Tables& tables) {
  TORCH_CHECK_VALUE(tables.size() == 3 || tables.size() == 4,
                    "LaggingRows: expected exp_avg, exp_avg_sq, steps and perhaps a master, got ",
                    tables.size(), " tables");
  return {.exp_avg = tables[0],
          .exp_avg_sq = tables[1],
          .steps = tables[2],
          .master = tables.size() == 4 ? tables[3] : at::Tensor()};
}

class PyLaggingRows : public torch::CustomClassHolder {
 public:
  PyLaggingRows(double beta1, double beta2, double eps, std::int64_t seed)
      : beta1_(beta1),
        beta2_(beta2),
        eps_(eps),
        rows_(beta1, beta2, eps, static_cast<std::uint64_t>(seed)) {}

  // weights, rows, first_columns, slots, begin, entries: as update_adamw has them.
  void update(at::Tensor values, const Tables& tables, const std::vector<at::Tensor>& weights,
              const std::vector<at::Tensor>& rows, const std::vector<std::int64_t>& first_columns,
              const at::Tensor& slots, const at::Tensor& begin, const at::Tensor& entries,
              double lr, double weight_decay, double gradient_scale, std::int64_t seed) {
    TORCH_CHECK_VALUE(weights.size() == rows.size() && rows.size() == first_columns.size(),
                      "LaggingRows: expected as many weights as rows and first columns, got ",
                      weights.size(), ", ", rows.size(), " and ", first_columns.size());
    GroupedGradient gradient{
        .contributions = {}, .slots = slots, .begin = begin, .entries = entries};
    for (std::size_t i = 0; i < weights.size(); ++i) {
      gradient.contributions.push_back({{}, weights[i], rows[i], first_columns[i]});
    }
    RowState state = state_of(tables);
    rows_.update(values, state, gradient,
                 {.lr = lr,
                  .beta1 = beta1_,
                  .beta2 = beta2_,
                  .eps = eps_,
                  .weight_decay = weight_decay,
                  .gradient_scale = gradient_scale,
                  .rounding_seed = static_cast<std::uint64_t>(seed)});
    const ops::MissedSteps& missed = rows_.missed();
    if (missed.last() - missed.first() >= ops::MissedSteps::kMostSteps) {
      catch_up_all(std::move(values), tables);
    }
  }
  void catch_up(at::Tensor values, const Tables& tables, const at::Tensor& slots) const {
    const at::Tensor given = slots.to(at::kCPU, at::kLong).contiguous();
    ops::check_slots("LaggingRows", given, values.size(0));
    RowState state = state_of(tables);
    rows_.catch_up(values, state, given);
  }
  // After it no row has missed a step.
  void catch_up_all(at::Tensor values, const Tables& tables) {
    RowState state = state_of(tables);
    rows_.catch_up_all(values, state);
    rows_.missed().reset(rows_.missed().last());
  }
  void reset(std::int64_t step) { rows_.missed().reset(step); }

 private:
  double beta1_, beta2_, eps_;
  ops::LaggingRows rows_;
};

}  // namespace

TORCH_LIBRARY_FRAGMENT(memlayers, m) {
  m.class_<PyLaggingRows>("LaggingRows")
      .def(torch::init<double, double, double, std::int64_t>())
      .def("update", &PyLaggingRows::update)
      .def("catch_up", &PyLaggingRows::catch_up)
      .def("catch_up_all", &PyLaggingRows::catch_up_all)
      .def("reset", &PyLaggingRows::reset);
}

}  // namespace memlayers::python
