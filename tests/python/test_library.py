# SPDX-License-Identifier: Apache-2.0
"""How the package finds its library, and the sentence where it cannot."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from memlayers import _library

LOADED = _library.find_library()
PACKAGE = Path(_library.__file__).parent


def import_in(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`import memlayers` of the copy in `folder`, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "import memlayers; print(memlayers.shell_slots(2).tolist())"],
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout that holds only the package; returns its python folder."""
    folder = tmp_path / "python"
    shutil.copytree(
        PACKAGE, folder / "memlayers", ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    return folder


def test_the_library_beside_the_package_is_loaded(checkout):
    shutil.copy(LOADED, checkout / "memlayers" / "libmemlayers.so")
    assert import_in(checkout).stdout == "[0, 1, 3, 2]\n"


def test_the_library_of_the_checkout_is_loaded(checkout):
    build = checkout.parent / "build" / "release"
    build.mkdir(parents=True)
    shutil.copy(LOADED, build)
    assert import_in(checkout).stdout == "[0, 1, 3, 2]\n"


def test_the_library_that_the_environment_names_comes_first(checkout):
    (checkout / "memlayers" / "libmemlayers.so").write_bytes(b"not this one")
    result = import_in(checkout, MEMLAYERS_LIBRARY=str(LOADED))
    assert result.stdout == "[0, 1, 3, 2]\n"


def test_a_library_that_torch_has_loaded_already_is_used(checkout):
    script = f"import torch; torch.ops.load_library({str(LOADED)!r}); import memlayers; print(1)"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout == "1\n", result.stderr


def test_no_library_is_an_import_error_that_says_what_to_do(checkout):
    error = import_in(checkout).stderr.splitlines()[-1]
    assert error.startswith("ImportError: memlayers: expected libmemlayers.so as one of")
    assert "make build" in error


def test_a_named_library_that_is_not_there_is_an_import_error(monkeypatch):
    monkeypatch.setenv("MEMLAYERS_LIBRARY", "/nowhere/lib.so")
    with pytest.raises(
        ImportError, match="MEMLAYERS_LIBRARY: expected a file, got '/nowhere/lib.so'"
    ):
        _library.find_library()


@pytest.mark.parametrize("content", [b"", b"\x7fELF and something else"])
def test_another_file_is_an_import_error(tmp_path, content):
    other = tmp_path / "libmemlayers.so"
    other.write_bytes(content)
    with pytest.raises(ImportError, match="libmemlayers.so: expected a"):
        _library.built_with(other)


def test_a_file_that_cannot_be_loaded_is_an_import_error(checkout):
    other = b"no ELF; memlayers built with torch " + torch.__version__.encode() + b"\0"
    (checkout / "memlayers" / "libmemlayers.so").write_bytes(other)
    error = import_in(checkout).stderr.splitlines()[-1]
    assert error.startswith("ImportError: memlayers:") and "cannot be loaded" in error


def test_a_library_of_another_torch_is_an_import_error(monkeypatch, checkout):
    assert _library.built_with(LOADED).split(".")[:2] == torch.__version__.split(".")[:2]
    version = b"memlayers built with torch "
    content = LOADED.read_bytes()
    at = content.index(version) + len(version)
    altered = content[:at] + b"1.13.0" + content[at + 6 :]
    (checkout / "memlayers" / "libmemlayers.so").write_bytes(altered)
    error = import_in(checkout).stderr.splitlines()[-1]
    assert "expected torch 1.13.0, which it was built with, got 2." in error
