# SPDX-License-Identifier: Apache-2.0
"""The scripts of examples/python run, and hold what they assert."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memlayers import _library

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "python"


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_script(script, tmp_path):
    if "import transformers" in script.read_text():
        pytest.importorskip("transformers", reason="transformers is not installed")
    if "-m" in script.read_text() and not (_library.find_library().parent / "memlayers").is_file():
        pytest.skip("the command is not built")
    package = Path(_library.__file__).resolve().parents[1]  # PYTHONPATH may be relative
    environment = {
        **os.environ,
        "PYTHONPATH": str(package),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("\n") >= 3 and os.listdir(tmp_path) == []
