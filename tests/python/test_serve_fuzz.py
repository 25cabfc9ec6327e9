# SPDX-License-Identifier: Apache-2.0
"""Requests that nobody should send: never a 500, never a lost process, no growth (tests/fuzz/http_requests.py).
MEMLAYERS_SOAK=1: a million of them."""

import os
import sys
from pathlib import Path

import pytest
from served import ADMIN, Served, make_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fuzz"))

from http_requests import Fuzz  # noqa: E402

REQUESTS = 1_000_000 if os.environ.get("MEMLAYERS_SOAK") else 3000
GROWTH = 64 << 20  # of memory, after the first third: what it keeps has limits of its own


@pytest.mark.parametrize("has_keys", [True, False])
def test_no_request_harms_the_server(tmp_path, has_keys):
    keys = tmp_path / "keys" if has_keys else None
    if keys is not None:
        keys.mkdir()
    server = Served(make_model(tmp_path), "--cache-bytes", "16MB", "--queue", "1000", keys=keys)
    fuzz = Fuzz(server.host, server.port, ADMIN if has_keys else None)
    memory: list[int] = []
    fuzz.run(1 if has_keys else 10**9, REQUESTS // 2, 4, lambda _: memory.append(server.memory()))
    assert fuzz.failed == [], "\n".join(fuzz.failed)
    assert server.process.poll() is None, "".join(server.log)
    assert fuzz.seen[200] > REQUESTS // 20, f"too few that come through: {fuzz.seen}"
    assert max(memory[len(memory) // 3 :]) - memory[len(memory) // 3] < GROWTH, memory
    assert server.stop() == 0
