// SPDX-License-Identifier: Apache-2.0
// Products of 8-bit rows with an 8-bit query in whole numbers: the same on every instruction set.
// Included once per instruction set, after Screen.

// Rows `apart` bytes from each other; their sums `out_apart`.
template <int R>
void screen_rows(const Int8* rows, std::int64_t apart, const std::int8_t* query, std::int64_t width,
                 std::int32_t* out, std::int64_t out_apart) {
  Screen screens[R];
  const std::int64_t padded = round_up(width, 16);  // of a row: zeros behind the width
  for (std::int64_t c = 0; c < padded; c += Screen::kColumns) {
    const auto part = Screen::query(query + c);
    const std::int64_t n = padded - c < Screen::kColumns ? padded - c : Screen::kColumns;
    for (int r = 0; r < R; ++r) screens[r].add(part, rows + r * apart + c, n);
  }
  for (int r = 0; r < R; ++r) out[r * out_apart] = screens[r].total();
}

// Quarters of the rows side by side: so many streams keep more of the memory busy than one.
void screen(const Int8* rows, std::int64_t stride, std::int64_t count, const std::int8_t* query,
            std::int64_t width, std::int32_t* out) noexcept {
  constexpr std::int64_t kStreams = 4;
  const std::int64_t each = count / kStreams;
  for (std::int64_t i = 0; i < each; ++i) {
    screen_rows<kStreams>(rows + i * stride, each * stride, query, width, out + i, each);
  }
  for (std::int64_t i = each * kStreams; i < count; ++i) {
    screen_rows<1>(rows + i * stride, 0, query, width, out + i, 0);
  }
}
