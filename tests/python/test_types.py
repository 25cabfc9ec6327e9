# SPDX-License-Identifier: Apache-2.0
"""The package holds under mypy's strict mode, and says so to others."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "python"


def test_mypy_strict(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed (make dev-dependencies)")
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--cache-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (SOURCE / "memlayers" / "py.typed").is_file()
