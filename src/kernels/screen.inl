// SPDX-License-Identifier: Apache-2.0
// Products of 8-bit rows with an 8-bit query in whole numbers: the same on every instruction set.
// Included once per instruction set, after Screen.

template <int R>
void screen_rows(const Int8* rows, std::int64_t stride, const std::int8_t* query,
                 std::int64_t width, std::int32_t* out) {
  Screen screens[R];
  const std::int64_t padded = round_up(width, 16);  // of a row: zeros behind the width
  for (std::int64_t c = 0; c < padded; c += Screen::kColumns) {
    const auto part = Screen::query(query + c);
    const std::int64_t n = padded - c < Screen::kColumns ? padded - c : Screen::kColumns;
    for (int r = 0; r < R; ++r) screens[r].add(part, rows + r * stride + c, n);
  }
  for (int r = 0; r < R; ++r) out[r] = screens[r].total();
}

void screen(const Int8* rows, std::int64_t stride, std::int64_t count, const std::int8_t* query,
            std::int64_t width, std::int32_t* out) noexcept {
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) screen_rows<4>(rows + i * stride, stride, query, width, out + i);
  for (; i < count; ++i) screen_rows<1>(rows + i * stride, stride, query, width, out + i);
}
