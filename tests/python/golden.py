# SPDX-License-Identifier: Apache-2.0
"""The golden cases in MEMLAYERS_GOLDEN_DIR; none is an error, not a pass."""

import os
from pathlib import Path


def golden_cases(kind: str) -> list[Path]:
    folder = os.environ.get("MEMLAYERS_GOLDEN_DIR")
    if not folder:
        raise RuntimeError(
            "MEMLAYERS_GOLDEN_DIR: expected the folder of the golden cases, got nothing"
        )
    cases = sorted(p for p in (Path(folder) / kind).glob("*") if not p.name.startswith("."))
    if not cases:
        raise RuntimeError(f"{folder}/{kind}: expected golden cases, found none")
    return cases
