// SPDX-License-Identifier: Apache-2.0
// The table of an instruction set's kernels.

template <class Row>
constexpr RowKernels<Row> row_kernels() {
  return {gather<Row>, gather_add<Row>, dots<Row>, adamw<Row>, sgd<Row>, normal<Row>};
}

constexpr Kernels make_table(const char* isa) {
  return {isa, top_k, combine, squared_norm, row_kernels<float>(), row_kernels<BFloat16>()};
}
