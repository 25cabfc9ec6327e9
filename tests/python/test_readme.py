# SPDX-License-Identifier: Apache-2.0
"""python/README.md's examples, one after the other as a reader would run them."""

import re
from pathlib import Path

from test_model_folder import folder  # noqa: F401  a fixture

from memlayers import MemoryPool, read_patch

README = Path(__file__).resolve().parents[2] / "python" / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def test_examples_run(folder, capsys, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)  # they write files
    names = {"model_folder": folder}
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), names)
    assert len(BLOCKS) == 7
    assert len(read_patch("example.safetensors").keys) == 1
    told = capsys.readouterr().out
    assert re.fullmatch(
        r"\d+ of 16384 rows have a gradient\nthe pool's gradient had norm \d+\.\d+.*\n", told
    )
    assert names["y"].shape == (10, 64)
    assert MemoryPool.from_slots(names["values"]).n_keys == 4
