# SPDX-License-Identifier: Apache-2.0
"""Shell numbering of the grid: slot(i, j) = m*m + m + i - j with m = max(i, j).

The first n*n numbers are exactly the n x n grid, so a pool grows by appending rows.
"""

from math import isqrt

import torch
from torch import Tensor


def slot_of(row: int, column: int) -> int:
    """The slot of a cell."""
    if row < 0 or column < 0:
        raise ValueError(f"slot_of: expected row and column >= 0, got {row} and {column}")
    m = max(row, column)
    return m * m + m + row - column


def cell_of(slot: int) -> tuple[int, int]:
    """The cell (row, column) of a slot."""
    if slot < 0:
        raise ValueError(f"cell_of: expected a slot >= 0, got {slot}")
    m = isqrt(slot)
    d = slot - m * m
    return (d, m) if d < m else (m, 2 * m - d)


def shell_slots(n_keys: int) -> Tensor:
    """[n_keys^2] int64: the slot of each row-major cell i * n_keys + j.

    values_shell[shell_slots(n)] = values_row_major turns a row-major table into a pool's.
    """
    if n_keys < 1:
        raise ValueError(f"shell_slots: expected n_keys >= 1, got {n_keys}")
    index = torch.arange(n_keys)
    row, column = index.unsqueeze(1), index.unsqueeze(0)
    m = torch.maximum(row, column)
    return (m * m + m + row - column).flatten()
