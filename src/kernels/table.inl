// SPDX-License-Identifier: Apache-2.0
// The table of an instruction set's kernels.

template <class Row>
constexpr ReadKernels<Row> read_kernels() {
  return {gather<Row>, gather_add<Row>, dots<Row>};
}

template <class Row>
constexpr RowKernels<Row> row_kernels() {
  return {read_kernels<Row>(),    dots_in_order<Row>, products<Row>,
          weighted_sums_add<Row>, adamw<Row>,         sgd<Row>,
          momentum<Row>,          catch_up<Row>,      normal<Row>};
}

constexpr Kernels make_table(const char* isa) {
  return {isa,
          top_k,
          combine,
          softmax,
          softmax_of_all,
          silu,
          screen,
          block_screen(),
          gather_cached,
          gather_cached_add,
          packed_products,
          pack_vectors,
          squared_norm,
          row_kernels<float>(),
          row_kernels<BFloat16>(),
          read_kernels<Int8>(),
          read_kernels<Int4>()};
}
