# SPDX-License-Identifier: Apache-2.0
"""pip installs the package with its library, from a checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memlayers import _library

LOADED = _library.find_library()
SOURCE = Path(__file__).resolve().parents[2] / "python"

TRY = """
import memlayers, torch
layer = memlayers.MemoryLayer(8, n_keys=4, heads=1, knn=2, k_dim=4)
layer(torch.randn(3, 8)).sum().backward()
print(memlayers._library.find_library())
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    folder = tmp_path / "checkout"
    ignore = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__", "*.so")
    shutil.copytree(SOURCE, folder / "python", ignore=ignore)
    return folder


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MEMLAYERS_LIBRARY")}
    return {**kept, **changes}


def install(checkout: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    return subprocess.run(
        [*command, "--no-index", "--target", str(checkout / "installed"), "./python"],
        cwd=checkout,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
    )


def check_installed(checkout: Path) -> None:
    """The installed package works without the checkout, from another folder."""
    installed = checkout / "installed"
    result = subprocess.run(
        [sys.executable, "-c", TRY],
        cwd="/",
        env=environment(PYTHONPATH=str(installed)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout.strip() == str(installed / "memlayers" / "libmemlayers.so"), result.stderr
    assert (installed / "memlayers" / "py.typed").is_file()
    (wheel,) = installed.glob("memlayers-*.dist-info/WHEEL")
    assert "Tag: py3-none-" in wheel.read_text() and "Root-Is-Purelib: false" in wheel.read_text()


def test_a_checkout_that_is_built_installs_its_library(checkout):
    (checkout / "build" / "release").mkdir(parents=True)
    shutil.copy(LOADED, checkout / "build" / "release")
    result = install(checkout)
    assert result.returncode == 0, result.stderr
    check_installed(checkout)


def test_a_checkout_that_is_not_built_is_built_first(checkout):
    (checkout / "CMakeLists.txt").touch()
    recipe = f"build:\n\tmkdir -p build/release && cp '{LOADED}' build/release/\n"
    (checkout / "Makefile").write_text(recipe)
    result = install(checkout)
    assert result.returncode == 0, result.stderr
    check_installed(checkout)


def test_a_named_library_is_installed(checkout):
    result = install(checkout, MEMLAYERS_LIBRARY=str(LOADED))
    assert result.returncode == 0, result.stderr
    check_installed(checkout)


def test_what_cannot_be_built_is_said_in_a_sentence(checkout):
    assert "expected a checkout at" in install(checkout).stderr
    (checkout / "CMakeLists.txt").touch()
    (checkout / "Makefile").write_text("build:\n\tfalse\n")
    assert "memlayers: expected `make build` in" in install(checkout).stderr
    (checkout / "Makefile").write_text("build:\n\ttrue\n")
    assert "memlayers: expected the build to make" in install(checkout).stderr
    wrong = install(checkout, MEMLAYERS_LIBRARY="/nowhere/lib.so").stderr
    assert "memlayers: MEMLAYERS_LIBRARY: expected a file, got '/nowhere/lib.so'" in wrong
    assert not (checkout / "installed").exists()
