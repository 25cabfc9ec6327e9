# SPDX-License-Identifier: Apache-2.0
"""Puts the library and the command into the wheel: those of the build folder that MEMLAYERS_LIBRARY
names a file in, else the checkout's.

A checkout without build/release/libmemlayers.so is built first. Where patchelf is installed, what
the library needs of the system beside torch and glibc goes into the wheel too (bundle.py), which
then is one for every Linux with such a glibc (manylinux).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))
import bundle  # noqa: E402

NAME, COMMAND = "libmemlayers.so", "memlayers"
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
        ["cmake", "--build", "--preset", "release", "--target", "memlayers_cli"],
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
        if getattr(self, "editable_mode", False):
            return
        package = Path(self.build_lib) / "memlayers"
        source = library()
        shutil.copy2(source, package / NAME)
        command = source.parent / COMMAND
        if command.is_file():
            (package / "bin").mkdir(exist_ok=True)
            shutil.copy2(command, package / "bin" / COMMAND)
        if bundle.is_possible():
            bundle.bundle(package, source)


class WheelOfAnyPython(bdist_wheel):
    """The library registers with torch and knows no Python version."""

    def get_tag(self) -> tuple[str, str, str]:
        platform = super().get_tag()[2]
        package = Path(self.get_finalized_command("build_py").build_lib) / "memlayers"
        if bundle.is_possible() and (package / NAME).is_file():
            platform = bundle.platform_tag(package, platform)
        return "py3", "none", platform


class BinaryDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelOfAnyPython},
    distclass=BinaryDistribution,
)
