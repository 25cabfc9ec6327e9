#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ten times the load that it can take, for some seconds: how long a 429 takes, what is answered meanwhile beside the
most that it answers (goodput), and whether memory grows.

  bench/serving/overload.py MODEL --seconds 300 --out bench/results/serving/NAME.jsonl

The peak is that of as many clients as there are slots, each of which asks again when it has its answer. Then requests
come at ten times that rate, whether or not others are answered.
"""

import asyncio
import random
import time

from harness import Server, allow_files, body_of, ours, parser, quantile, random_prompt, report, table, whole


class Load:
    def __init__(self, server: Server, tokens: int) -> None:
        self.server, self.tokens, self.chance = server, tokens, random.Random(1)
        self.statuses: dict[int, list[float]] = {}
        self.good: list[float] = []  # when answers came

    async def ask(self) -> None:
        body = body_of(self.server, random_prompt(self.server, 16, self.chance), self.tokens)
        status, seconds, _ = await whole(self.server, body)
        self.statuses.setdefault(status, []).append(seconds)
        if status == 200:
            self.good.append(time.monotonic())


async def peak(server: Server, clients: int, tokens: int, seconds: float) -> float:
    """Requests a second."""
    load = Load(server, tokens)
    until = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < until:
            await load.ask()

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(clients)))
    if set(load.statuses) != {200}:
        raise SystemExit(f"a request of the peak was not answered: {sorted(load.statuses)}")
    return len(load.good) / (time.monotonic() - began)


async def overload(server: Server, rate: float, tokens: int, seconds: float) -> tuple[Load, float, list[float]]:
    """The load, its goodput in requests a second, and the server's memory as time goes on."""
    load = Load(server, tokens)
    tasks: set[asyncio.Task] = set()
    memory = []
    began = time.monotonic()
    sent = 0
    while (now := time.monotonic()) - began < seconds:
        while sent < (now - began) * rate:
            task = asyncio.create_task(load.ask())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        if len(memory) < (now - began):
            memory.append(server.mib())
        await asyncio.sleep(0.005)
    # Neither the beginning, while the queue fills, nor the end.
    first, last = began + seconds * 0.1, began + seconds
    goodput = sum(1 for when in load.good if first <= when <= last) / (last - first)
    await asyncio.gather(*tasks)
    return load, goodput, memory


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--seconds", type=float, default=120)
    p.add_argument("--times", type=float, default=10)
    p.add_argument("--tokens", type=int, default=32, help="of each answer")
    p.add_argument("--slots", type=int, default=16)
    p.add_argument("--queue", type=int, default=32)
    a = p.parse_args()
    allow_files()
    options = ["--slots", a.slots, "--queue", a.queue, "--connections", 4096, "--connections-per-address", 4096]
    server = ours(a, *options, "--no-prefix-cache")
    asyncio.run(peak(server, a.slots, a.tokens, 3))
    most = asyncio.run(peak(server, a.slots, a.tokens, max(10.0, a.seconds / 6)))
    load, goodput, memory = asyncio.run(overload(server, most * a.times, a.tokens, a.seconds))
    refused = load.statuses.get(429, [])
    others = {status: len(times) for status, times in load.statuses.items() if status not in (200, 429)}
    health = server.get("/health")["status"]
    server.stop()
    third = max(memory[: max(1, len(memory) // 3)])
    grown = max(memory[len(memory) // 2 :]) - third
    figures = {
        "seconds": a.seconds,
        "times": a.times,
        "peak_requests_per_s": most,
        "goodput_requests_per_s": goodput,
        "goodput_over_peak": goodput / most,
        "refused": len(refused),
        "refused_median_s": quantile(refused, 0.5),
        "refused_p99_s": quantile(refused, 0.99),
        "refused_max_s": max(refused, default=0),
        "other_statuses": others,
        "mib_third": third,
        "mib_grown": grown,
        "health": health,
    }
    table(
        [
            ("figure", "measured", "wanted"),
            (
                "429",
                f"{len(refused)} of them, median {quantile(refused, 0.5) * 1e3:.1f} ms, p99 "
                f"{quantile(refused, 0.99) * 1e3:.1f} ms",
                "within 50 ms",
            ),
            (
                "goodput over peak",
                f"{goodput:.1f} of {most:.1f} requests/s: {goodput / most:.2f}"
                + (f"; other answers: {others}" if others else ""),
                "at least 0.9",
            ),
            ("memory", f"{third:.0f} MiB after a third, {grown:+.1f} MiB in the second half", "no growth"),
        ]
    )
    report(a, figures)


if __name__ == "__main__":
    main()
