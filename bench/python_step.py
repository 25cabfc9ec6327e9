# SPDX-License-Identifier: Apache-2.0
"""A training step of a memory layer in Python by optimizer of its pool: the table of docs/python.md.

    PYTHONPATH=python .venv/bin/python bench/python_step.py [--n-keys 1024] [--dim 256] [--tokens 2048]

Rounds of all of them in turn; of each the median of wall time and of processor time a step, and of
the part in the optimizer. Nothing else should run.
"""

import argparse
import json
import statistics
import time

import torch

from memlayers import MemoryLayer, RowOptimizer


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("n-keys", 1024), ("dim", 256), ("tokens", 2048), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", help="of RowOptimizer, SparseAdam, AdamW")
    return parser.parse_args()


def case(name: str, arguments: argparse.Namespace):
    torch.manual_seed(1)
    layer = MemoryLayer(
        arguments.dim,
        n_keys=arguments.n_keys,
        heads=4,
        knn=32,
        k_dim=128,
        sparse=name == "SparseAdam",
        factored=name == "RowOptimizer",
    )
    rows = [layer.pool.values]
    optimizer = {
        "RowOptimizer": lambda: RowOptimizer(rows, lr=1e-3),
        "SparseAdam": lambda: torch.optim.SparseAdam(rows, lr=1e-3),
        "AdamW": lambda: torch.optim.AdamW(rows, lr=1e-3, weight_decay=0.0, foreach=False),
    }[name]()
    return layer, optimizer


def one_step(layer, optimizer, x) -> dict[str, float]:
    clocks = (time.perf_counter, time.process_time)
    start = [clock() for clock in clocks]
    layer(x).square().mean().backward()
    middle = [clock() for clock in clocks]
    optimizer.step()
    optimizer.zero_grad()
    end = [clock() for clock in clocks]
    for parameter in layer.parameters():
        parameter.grad = None
    return {
        "wall_ms": 1e3 * (end[0] - start[0]),
        "cpu_ms": 1e3 * (end[1] - start[1]),
        "optimizer_wall_ms": 1e3 * (end[0] - middle[0]),
        "optimizer_cpu_ms": 1e3 * (end[1] - middle[1]),
    }


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    for name in arguments.only or ("RowOptimizer", "SparseAdam", "AdamW"):
        layer, optimizer = case(name, arguments)
        x = torch.randn(arguments.tokens, arguments.dim)
        steps = [one_step(layer, optimizer, x) for _ in range(arguments.rounds + 2)][2:]
        medians = {key: round(statistics.median(s[key] for s in steps), 1) for key in steps[0]}
        print(json.dumps({"optimizer": name, "threads": arguments.threads, **medians}), flush=True)
        del layer, optimizer


if __name__ == "__main__":
    main()
