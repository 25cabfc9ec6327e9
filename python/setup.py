# SPDX-License-Identifier: Apache-2.0
"""Puts libmemlayers.so into the wheel: the file that MEMLAYERS_LIBRARY names, else the checkout's.

A checkout without build/release/libmemlayers.so is built first.
"""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NAME = "libmemlayers.so"
CHECKOUT = Path(__file__).resolve().parent.parent


def library() -> Path:
    named = os.environ.get("MEMLAYERS_LIBRARY")
    if named:
        if not Path(named).is_file():
            raise SystemExit(f"memlayers: MEMLAYERS_LIBRARY: expected a file, got {named!r}")
        return Path(named)
    built = CHECKOUT / "build" / "release" / NAME
    if not built.is_file():
        build()
    if not built.is_file():
        raise SystemExit(f"memlayers: expected the build to make {built}, found none")
    return built


def build() -> None:
    if not (CHECKOUT / "CMakeLists.txt").is_file():
        raise SystemExit(
            f"memlayers: expected a checkout at {CHECKOUT} or a library in MEMLAYERS_LIBRARY, "
            "found neither"
        )
    commands = [
        ["cmake", "--preset", "release"],
        ["cmake", "--build", "--preset", "release", "--target", "memlayers"],
    ]
    if (CHECKOUT / "Makefile").is_file() and shutil.which("make"):
        commands = [["make", "build"]]
    for command in commands:
        try:
            subprocess.run(command, cwd=CHECKOUT, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            text = " ".join(command)
            raise SystemExit(
                f"memlayers: expected `{text}` in {CHECKOUT} to build {NAME}, got: {error}"
            ) from error


class BuildWithLibrary(build_py):
    def run(self) -> None:
        super().run()
        # An editable install finds the library in the checkout.
        if not getattr(self, "editable_mode", False):
            shutil.copy2(library(), Path(self.build_lib) / "memlayers" / NAME)


class WheelOfAnyPython(bdist_wheel):
    """The library registers with torch and knows no Python version."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class BinaryDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelOfAnyPython},
    distclass=BinaryDistribution,
)
