# SPDX-License-Identifier: Apache-2.0
"""Finds libmemlayers.so and loads it into PyTorch, once."""

import mmap
import os
from pathlib import Path

import torch

_NAME = "libmemlayers.so"
_MARK = b"memlayers built with torch "  # src/ops/torch/register.cpp


def find_library() -> Path:
    """The library that MEMLAYERS_LIBRARY names, else this package's, else the checkout's."""
    package = Path(__file__).resolve().parent
    named = os.environ.get("MEMLAYERS_LIBRARY")
    if named:
        if not Path(named).is_file():
            raise ImportError(f"memlayers: MEMLAYERS_LIBRARY: expected a file, got {named!r}")
        return Path(named).resolve()
    places = [package / _NAME, package.parent.parent / "build" / "release" / _NAME]
    for place in places:
        if place.is_file():
            return place
    raise ImportError(
        f"memlayers: expected {_NAME} as one of {', '.join(map(str, places))}, found none: "
        "run `make build` in the checkout, or set MEMLAYERS_LIBRARY"
    )


def built_with(library: Path) -> str:
    """The version of torch that the library was built with, read without loading it."""
    try:
        with (
            library.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            at = data.find(_MARK)
            if at < 0:
                raise ImportError(
                    f"memlayers: {library}: expected a memlayers library, got another file"
                )
            at += len(_MARK)
            return data[at : data.find(b"\0", at)].decode("ascii", "replace")
    except (OSError, ValueError) as error:  # unreadable; empty
        raise ImportError(f"memlayers: {library}: expected a library, got {error}") from error


def load_library() -> None:
    """Registers torch.ops.memlayers. Raises ImportError, a sentence, where that is impossible."""
    if hasattr(torch.ops.memlayers, "lookup"):
        return  # somebody called torch.ops.load_library: a second copy would not register
    library = find_library()
    wanted = built_with(library)
    # C++ classes change from one minor version to the next.
    if wanted.split(".")[:2] != torch.__version__.split(".")[:2]:
        raise ImportError(
            f"memlayers: {library}: expected torch {wanted}, which it was built with, "
            f"got {torch.__version__}"
        )
    try:
        torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ImportError(f"memlayers: {library}: cannot be loaded: {error}") from error
