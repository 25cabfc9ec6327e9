#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One greedy request a thousand times, under random load, edits of the pool, the prefix cache and speculation: how many
distinct answers there are. Of an answer its text and all its log-probabilities count, as they are written. Where the
model has a pool, the request names the version it began with, and patches of any rows come and go meanwhile: the model
is edited, give it a copy.

  bench/serving/same_bits.py MODEL --out bench/results/serving/NAME.jsonl
"""

import asyncio
import json
import random
import time
import urllib.request
from collections import Counter

from harness import Server, body_of, ours, parser, patch_bytes, random_prompt, report, stream, table, whole


def answer_of(choices: list[dict]) -> str:
    """All of it that is the model's, in one text, however it came."""
    merged: dict = {"text": "", "tokens": [], "token_logprobs": [], "top_logprobs": [], "finish_reason": None}
    for choice in choices:
        merged["text"] += choice["text"]
        merged["finish_reason"] = choice["finish_reason"] or merged["finish_reason"]
        for name in ("tokens", "token_logprobs", "top_logprobs"):
            merged[name] += (choice["logprobs"] or {}).get(name) or []
    return json.dumps(merged, sort_keys=True)


class Test:
    def __init__(self, server: Server, a, pool: dict | None) -> None:
        self.server, self.pool, self.requests, self.clients = server, pool, a.requests, a.clients
        self.chance = random.Random(a.seed)
        # Something that stood there before, so that drafts are made; longer than two pages of the prefix cache.
        piece = random_prompt(server, 45, self.chance)
        self.prompt = " ".join([piece] * 3) if isinstance(piece, str) else piece * 3
        more: dict = {"logprobs": 3}
        if pool is not None:
            more["memory"] = {"version": pool["version"]}
        self.body = body_of(server, self.prompt, a.tokens, **more)
        self.answers: Counter[str] = Counter()
        self.loads, self.edits, self.cached = 0, 0, 0
        self.is_over = False

    async def ask(self, numbers) -> None:
        for number in numbers:
            if number % 2:
                one = await stream(self.server, self.body, keeps_events=True)
                if one.status != 200 or one.error:
                    raise SystemExit(f"an answer failed: {one.status} {one.error}")
                choices = [choice for event in one.events for choice in event["choices"]]
            else:
                status, _, json_answer = await whole(self.server, self.body)
                if status != 200:
                    raise SystemExit(f"an answer failed: {status} {json_answer}")
                choices = json_answer["choices"]
                self.cached += json_answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
            self.answers[answer_of(choices)] += 1

    async def load(self, seed: int) -> None:
        """Others, of all lengths; some begin as the request does, some leave."""
        chance = random.Random(seed)
        longest = min(400, self.server.context // 2)
        while not self.is_over:
            length = chance.choice([1, 7, 40, 130, longest])
            prompt = random_prompt(self.server, length, chance)
            if chance.random() < 0.4:
                prompt = self.prompt[: chance.randrange(1, len(self.prompt) + 1)] + prompt[:20]
            body = body_of(self.server, prompt, chance.choice([1, 5, 30, 100]))
            if chance.random() < 0.3:
                body |= {"temperature": 1, "seed": chance.getrandbits(32), "top_p": 0.9}
            if self.pool is not None and chance.random() < 0.1:
                body["memory"] = {"off": True}
            await stream(self.server, body, leaves_after=chance.choice([None, None, 1, 3]))
            self.loads += 1
            await asyncio.sleep(chance.random() * 0.2)

    async def edit(self) -> None:
        seed = 0
        while not self.is_over:
            rows = self.chance.choice([1, 10, min(1000, self.pool["slots"])])
            identity, data = patch_bytes(self.pool, self.chance.sample(range(self.pool["slots"]), rows), seed, scale=1)
            seed += 1
            await asyncio.to_thread(self.server.post, "/v1/memory/patches", data)
            await asyncio.sleep(0.2)
            await asyncio.to_thread(self.server.post, f"/v1/memory/patches/{identity}", b"", "DELETE")
            self.edits += 2
            await asyncio.sleep(0.2)

    async def run(self) -> None:
        numbers = iter(range(self.requests))
        beside = [asyncio.create_task(self.load(seed)) for seed in range(4)]
        if self.pool is not None:
            beside.append(asyncio.create_task(self.edit()))
        await asyncio.gather(*(self.ask(numbers) for _ in range(self.clients)))
        self.is_over = True
        for result in await asyncio.gather(*beside, return_exceptions=True):
            if isinstance(result, BaseException):
                raise SystemExit(f"the load failed: {result!r}")


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--requests", type=int, default=1000)
    p.add_argument("--tokens", type=int, default=16)
    p.add_argument("--clients", type=int, default=8, help="that ask it at the same time")
    p.add_argument("--speculate", type=int, default=4)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    server = ours(a, "--speculate", a.speculate, "--versions", 1_000_000, "--queue", 1000)
    try:
        pool = server.get("/v1/memory")
    except OSError:
        pool = None
    test = Test(server, a, pool)
    began = time.monotonic()
    asyncio.run(test.run())
    seconds = time.monotonic() - began
    metrics = server_metrics(server)
    server.stop()
    total = sum(test.answers.values())
    beside = f"{test.loads} others, {test.edits} edits" + ("" if pool else " (no memory layers)")
    drafted = metrics.get("memlayers:accepted_tokens_total", 0)
    beside += f"; {test.cached} from the cache, {drafted:.0f} drafted tokens kept"
    table(
        [
            ("figure", "measured", "wanted"),
            (f"distinct answers of {total}", f"{len(test.answers)}; beside them {beside}; {seconds:.0f} s", "1"),
        ]
    )
    report(
        a,
        {
            "requests": total,
            "distinct": len(test.answers),
            "others": test.loads,
            "edits": test.edits,
            "cached": test.cached,
            "metrics": metrics,
            "seconds": seconds,
        },
    )
    raise SystemExit(len(test.answers) != 1)


def server_metrics(server: Server) -> dict[str, float]:
    """Of speculation and the prefix cache."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    names = ("draft", "accepted", "prefix_cache")
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#") and any(name in line for name in names)]
    return {name.split("{")[0]: float(value) for name, value in pairs}


if __name__ == "__main__":
    main()
