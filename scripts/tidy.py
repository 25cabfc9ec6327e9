#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clang-tidy on the files of a build, of which those that held once are passed over until something changes.

    scripts/tidy.py BUILD [FILE ...]

FILEs (default: all) are entries of BUILD/compile_commands.json. What held is remembered by a hash of the preprocessed
text, of .clang-tidy and of the program, under ~/.cache/memlayers-tidy (or XDG_CACHE_HOME). FULL=1 looks at all again.
"""

import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

# The compile commands hold g++'s warnings, some of which clang does not know; of what is deprecated g++ tells, and clang
# tells of libstdc++'s own. The analyzer may follow 50,000 states a function, a quarter of what it does otherwise: it takes
# a third of the time.
TIDY = [
    "clang-tidy-19", "--quiet", "--warnings-as-errors=*", "--extra-arg-before=-Wno-unknown-warning-option",
    "--extra-arg=-Wno-deprecated-declarations", "--extra-arg=-Xclang", "--extra-arg=-analyzer-config",
    "--extra-arg=-Xclang", "--extra-arg=max-nodes=50000",
]  # fmt: skip
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "memlayers-tidy"
ROOT = Path(__file__).resolve().parents[1]


def preprocessed(entry: dict) -> bytes:
    words = shlex.split(entry["command"])
    compiler = max(i for i, word in enumerate(words) if re.search(r"(^|/)(c\+\+|g\+\+|clang\+\+)[-\w.]*$", word))
    arguments = [word for word in words[compiler + 1 :] if word != "-c"]
    output = arguments.index("-o")
    del arguments[output : output + 2]
    run = subprocess.run(
        ["clang++-19", "-w", "-E", *arguments], cwd=entry["directory"], capture_output=True, check=True
    )
    return run.stdout.replace(str(ROOT).encode(), b"")


def held(build: Path, entry: dict, common: bytes) -> bool:
    stamp = CACHE / hashlib.sha256(common + preprocessed(entry)).hexdigest()
    if stamp.exists() and os.environ.get("FULL") != "1":
        return True
    run = subprocess.run([*TIDY, "-p", str(build), entry["file"]], capture_output=True, text=True)
    if run.returncode == 0:
        CACHE.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    else:
        print(run.stdout, end="", flush=True)
    return run.returncode == 0


def main() -> int:
    build, wanted = Path(sys.argv[1]), {str(Path(name).resolve()) for name in sys.argv[2:]}
    # What a build makes is not there: only what is written is looked at.
    entries = [e for e in json.loads((build / "compile_commands.json").read_text()) if Path(e["file"]).exists()]
    if wanted:
        entries = [entry for entry in entries if entry["file"] in wanted]
    if not entries:
        print(f"tidy.py: expected files of {build}/compile_commands.json, found none", file=sys.stderr)
        return 1
    version = subprocess.run(["clang-tidy-19", "--version"], capture_output=True, check=True).stdout
    common = version + (ROOT / ".clang-tidy").read_bytes() + " ".join(TIDY).encode()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda entry: held(build, entry, common), entries))
    if all(results):
        print(f"clang-tidy: {len(results)} of {len(entries)} files of {build.name} hold")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
