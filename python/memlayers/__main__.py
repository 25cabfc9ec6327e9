# SPDX-License-Identifier: Apache-2.0
"""`python -m memlayers ...` is the command `memlayers ...`."""

import os
import sys
from pathlib import Path

import torch

from ._library import find_library


def find_command() -> Path:
    """The command beside the library. Raises FileNotFoundError, a sentence."""
    place = find_library().parent
    for command in (place / "bin" / "memlayers", place / "memlayers"):
        if command.is_file():
            return command
    raise FileNotFoundError(
        f"memlayers: expected the command beside the library in {place}, found none: run `make build`"
    )


def main() -> None:
    """Becomes the command, with this process's arguments."""
    try:
        command = find_command()
    except (FileNotFoundError, ImportError) as error:
        sys.exit(str(error))
    # A wheel's command knows no path: the library is beside it, torch wherever Python has it.
    paths = [str(find_library().parent), str(Path(torch.__file__).parent / "lib")]
    given = os.environ.get("LD_LIBRARY_PATH")
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join([*paths, *([given] if given else [])])
    os.execv(command, [str(command), *sys.argv[1:]])


if __name__ == "__main__":
    main()
