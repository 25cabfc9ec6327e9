// SPDX-License-Identifier: Apache-2.0
// The checks of grouping and row updates (namespace check of operators.h).
#include <optional>

#include "ops/torch/check.h"
#include "ops/torch/operators.h"

namespace memlayers::ops::check {
namespace {

void check_list(const char* op, const char* name, const at::Tensor& tensor) {
  check_dim(op, name, tensor, 1);
  check_type(op, name, tensor, {at::kLong});
}

// The parts of a gradient of rows, and how group() put their contributions in order; `like` is on
// the device where all must be. How long begin and entries must be is known without the numbers.
void check_gradient(const char* op, const NamedTensor& like, at::TensorList weights,
                    at::TensorList rows, at::IntArrayRef first_columns, const at::Tensor& slots,
                    const at::Tensor& begin, const at::Tensor& entries, const c10::SymInt& width) {
  TORCH_CHECK_VALUE(rows.size() == weights.size() && first_columns.size() == weights.size(), op,
                    ": expected rows and first_columns of ", weights.size(),
                    " parts, as weights, got ", rows.size(), " and ", first_columns.size());
  check_together(op, {like, {"slots", slots}, {"begin", begin}, {"entries", entries}});
  check_list(op, "slots", slots);
  check_list(op, "begin", begin);
  check_list(op, "entries", entries);
  c10::SymInt count = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    check_together(op, {like, {"weights", weights[i]}, {"rows", rows[i]}});
    check_dim(op, "weights", weights[i], 2);
    check_dim(op, "rows", rows[i], 2);
    check_type(op, "weights", weights[i], {at::kFloat});
    check_type(op, "rows", rows[i], {at::kFloat});
    TORCH_CHECK_VALUE(rows[i].sym_size(0) == weights[i].sym_size(0), op, ": expected rows of ",
                      weights[i].sym_size(0), " tokens, as weights, got shape ",
                      rows[i].sym_sizes());
    TORCH_CHECK_VALUE(first_columns[i] >= 0 && rows[i].sym_size(1) + first_columns[i] <= width, op,
                      ": expected columns inside a row of ", width, ", got ", rows[i].sym_size(1),
                      " from column ", first_columns[i]);
    count += weights[i].sym_numel();
  }
  TORCH_CHECK_VALUE(begin.sym_size(0) == slots.sym_size(0) + 1, op, ": expected begin of ",
                    slots.sym_size(0) + 1, " numbers for ", slots.sym_size(0), " slots, got shape ",
                    begin.sym_sizes());
  TORCH_CHECK_VALUE(entries.sym_size(0) == count, op, ": expected entries of ", count,
                    " numbers, as weights, got shape ", entries.sym_sizes());
}

// A table of the state with a row's numbers, or a number, for each row of values.
void check_table(const char* op, const NamedTensor& table, const at::Tensor& values,
                 std::int64_t dim, at::ScalarType type) {
  check_together(op, {{"values", values}, table});
  check_type(op, table.name, table.tensor, {type});
  check_dim(op, table.name, table.tensor, dim);
  TORCH_CHECK_VALUE(table.tensor.sym_sizes() == values.sym_sizes().slice(0, dim), op, ": expected ",
                    table.name, " ", values.sym_sizes().slice(0, dim), ", got ",
                    table.tensor.sym_sizes());
}

void check_values(const char* op, const at::Tensor& values,
                  const std::optional<at::Tensor>& master) {
  check_dim(op, "values", values, 2);
  check_type(op, "values", values, {at::kFloat, at::kBFloat16});
  if (!master) return;
  check_table(op, {"master", *master}, values, 2, at::kFloat);
  TORCH_CHECK_VALUE(values.scalar_type() == at::kBFloat16, op,
                    ": expected a master copy for bfloat16 rows only, got values of type ",
                    values.scalar_type());
}

}  // namespace

void group(at::TensorList slots, std::int64_t num_slots) {
  TORCH_CHECK_VALUE(num_slots >= 0, "group: expected num_slots >= 0, got ", num_slots);
  TORCH_CHECK_VALUE(!slots.empty(), "group: expected slots of one part at least, got none");
  for (const at::Tensor& part : slots) {
    check_together("group", {{"the first slots", slots[0]}, {"slots", part}});
    check_dim("group", "slots", part, 2);
    check_type("group", "slots", part, {at::kLong});
  }
}

void row_squares(at::TensorList weights, at::TensorList rows, at::IntArrayRef first_columns,
                 const at::Tensor& slots, const at::Tensor& begin, const at::Tensor& entries,
                 std::int64_t width) {
  check_gradient("row_squares", {"slots", slots}, weights, rows, first_columns, slots, begin,
                 entries, width);
}

void update_adamw(at::Tensor& values, at::Tensor& exp_avg, at::Tensor& exp_avg_sq,
                  at::Tensor& steps, const std::optional<at::Tensor>& master,
                  at::TensorList weights, at::TensorList rows, at::IntArrayRef first_columns,
                  const at::Tensor& slots, const at::Tensor& begin, const at::Tensor& entries,
                  double, double, double, double, double, double, std::int64_t) {
  constexpr const char* kOp = "update_adamw";
  check_values(kOp, values, master);
  check_table(kOp, {"exp_avg", exp_avg}, values, 2, at::kFloat);
  check_table(kOp, {"exp_avg_sq", exp_avg_sq}, values, 2, at::kFloat);
  check_table(kOp, {"steps", steps}, values, 1, at::kInt);
  check_gradient(kOp, {"values", values}, weights, rows, first_columns, slots, begin, entries,
                 values.sym_size(1));
}

void update_rowwise_adamw(at::Tensor& values, const std::optional<at::Tensor>& exp_avg,
                          at::Tensor& exp_avg_sq, at::Tensor& steps,
                          const std::optional<at::Tensor>& master, at::TensorList weights,
                          at::TensorList rows, at::IntArrayRef first_columns,
                          const at::Tensor& slots, const at::Tensor& begin,
                          const at::Tensor& entries, double, double beta1, double, double, double,
                          double, std::int64_t) {
  constexpr const char* kOp = "update_rowwise_adamw";
  check_values(kOp, values, master);
  TORCH_CHECK_VALUE(exp_avg.has_value() || beta1 == 0, kOp,
                    ": expected exp_avg where beta1 is not 0, got none");
  if (exp_avg) check_table(kOp, {"exp_avg", *exp_avg}, values, 2, at::kFloat);
  check_table(kOp, {"exp_avg_sq", exp_avg_sq}, values, 1, at::kFloat);
  check_table(kOp, {"steps", steps}, values, 1, at::kInt);
  check_gradient(kOp, {"values", values}, weights, rows, first_columns, slots, begin, entries,
                 values.sym_size(1));
}

void update_rowwise_adagrad(at::Tensor& values, at::Tensor& exp_avg_sq,
                            const std::optional<at::Tensor>& master, at::TensorList weights,
                            at::TensorList rows, at::IntArrayRef first_columns,
                            const at::Tensor& slots, const at::Tensor& begin,
                            const at::Tensor& entries, double, double, double, double,
                            std::int64_t) {
  constexpr const char* kOp = "update_rowwise_adagrad";
  check_values(kOp, values, master);
  check_table(kOp, {"exp_avg_sq", exp_avg_sq}, values, 1, at::kFloat);
  check_gradient(kOp, {"values", values}, weights, rows, first_columns, slots, begin, entries,
                 values.sym_size(1));
}

void update_sgd(at::Tensor& values, const std::optional<at::Tensor>& master, at::TensorList weights,
                at::TensorList rows, at::IntArrayRef first_columns, const at::Tensor& slots,
                const at::Tensor& begin, const at::Tensor& entries, double, double, double,
                std::int64_t) {
  constexpr const char* kOp = "update_sgd";
  check_values(kOp, values, master);
  check_gradient(kOp, {"values", values}, weights, rows, first_columns, slots, begin, entries,
                 values.sym_size(1));
}

}  // namespace memlayers::ops::check
