# SPDX-License-Identifier: Apache-2.0
"""The golden cases: those of tests/golden, and of the folder that MEMLAYERS_GOLDEN_DIR names; none is an error."""

import os
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_cases(kind: str) -> list[Path]:
    more = os.environ.get("MEMLAYERS_GOLDEN_DIR")
    cases = []
    for golden in [GOLDEN] + ([Path(more)] if more else []):
        found = [p for p in (golden / kind).glob("*") if not p.name.startswith(".")]
        if not found:
            raise RuntimeError(f"{golden / kind}: expected golden cases, found none")
        cases += found
    return sorted(cases)
