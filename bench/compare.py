#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two builds beside each other: runs both alternately and prints the ratio with its spread.

    bench/compare.py OLD NEW                                  # the commands build/*/memlayers
    bench/compare.py OLD NEW --rounds 10 -- gather --dtype float32,bfloat16

Behind -- stands a `memlayers bench` line (default: step). Each round runs OLD and NEW once, in turns
first, so that what slows the machine for a while slows both. Every time that both report is compared:
the ratio new / old of the medians over the rounds, and the least and greatest of single rounds.
"""

import argparse
import json
import statistics
import subprocess
import sys


def run(command: str, line: list[str]) -> list[dict]:
    """The cases that the command measured, in order."""
    done = subprocess.run([command, "bench", *line, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"compare.py: {command}: {done.stderr.strip()}")
    return [json.loads(text) for text in done.stdout.splitlines()]


def label(case: dict, cases: list[dict]) -> str:
    """The options in which this case differs from others of the run."""
    options = ("tokens", "dim", "heads", "knn", "k_dim", "v_dim", "n_keys", "dtype", "variant",
               "optimizer", "dist")  # fmt: skip
    varied = [name for name in options if len({str(other.get(name)) for other in cases}) > 1]
    return ", ".join(f"{name} {case[name]}" for name in varied)


def main() -> None:
    argv, line = sys.argv[1:], ["step"]
    if "--" in argv:
        at = argv.index("--")
        argv, line = argv[:at], argv[at + 1 :]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args(argv)
    if a.rounds < 1:
        parser.error(f"--rounds: expected at least 1, got {a.rounds}")

    old, new = [], []
    for i in range(a.rounds):
        for command, results in ((a.old, old), (a.new, new))[:: 1 if i % 2 == 0 else -1]:
            results.append(run(command, line))
        print(f"round {i + 1} of {a.rounds}", file=sys.stderr)

    print("| case | figure | old, ms | new, ms | new / old | single rounds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for i, case in enumerate(new[0]):
        # Minima of each run; the medians come along in the same lines.
        names = [n for n in case if n.endswith("_ms") and not n.endswith("_median_ms")]
        for name in (n for n in names if n in old[0][i]):
            before = [cases[i][name] for cases in old]
            after = [cases[i][name] for cases in new]
            ratios = [b / a for a, b in zip(before, after, strict=True)]
            middle = statistics.median(before), statistics.median(after)
            print(
                f"| {label(case, new[0])} | {name.removesuffix('_ms')} | {middle[0]:.3f} | "
                f"{middle[1]:.3f} | {middle[1] / middle[0]:.3f} | {min(ratios):.3f} to {max(ratios):.3f} |"
            )


if __name__ == "__main__":
    main()
