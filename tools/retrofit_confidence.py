#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fits the numbers of memory_confidence (docs/editing.md, "Taught or not") to what tools/retrofit.py measured.

    python3 tools/retrofit_confidence.py runs/retrofit/*/confidence.json

Each line of such a file is a prompt's kind, confidence, match and agreement. A logistic regression of match and
agreement, with a penalty of --ridge times their squares (words tell taught from untaught subjects without an error, so
without a penalty the numbers would grow for ever), by Newton's method; each kind of prompt weighs as much.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

TAUGHT = {"taught": 1.0, "unseen": 1.0, "untaught": 0.0, "asked": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--ridge", type=float, default=1e-3)
    arguments = parser.parse_args()
    rows = [row for file in arguments.files for row in json.loads(file.read_text())]
    kinds = [row[0] for row in rows]
    x = torch.tensor([[1.0, row[2], row[3]] for row in rows], dtype=torch.float64)
    y = torch.tensor([TAUGHT[kind] for kind in kinds], dtype=torch.float64)
    weight = torch.tensor([1 / kinds.count(kind) for kind in kinds], dtype=torch.float64)
    weight /= weight.sum()
    numbers = torch.zeros(3, dtype=torch.float64)
    ridge = arguments.ridge * torch.tensor([0.0, 1, 1], dtype=torch.float64)
    for _ in range(50):
        p = torch.sigmoid(x @ numbers)
        gradient = x.T @ (weight * (p - y)) + ridge * numbers
        curvature = (x.T * (weight * p * (1 - p))) @ x + torch.diag(ridge) + 1e-9 * torch.eye(3, dtype=torch.float64)
        numbers = numbers - torch.linalg.solve(curvature, gradient)
    bias, match, agreement = (round(float(number), 2) for number in numbers)
    print(f"bias {bias}, match {match}, agreement {agreement}, from {len(rows)} prompts")
    for kind in TAUGHT:
        some = torch.sigmoid(x @ numbers)[torch.tensor([k == kind for k in kinds])]
        print(f"{kind}: {float(some.mean()):.3f} on average, {float(some.min()):.3f} to {float(some.max()):.3f}")


if __name__ == "__main__":
    main()
