#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokens a second of 1, 4 and 16 streams together, and the time to the first token of a prompt of 512 tokens at idle:
`memlayers serve` and llama-server in turn, several rounds, medians.

  bench/serving/streams.py MODEL --gguf MODEL.q8_0.gguf --llama LLAMA_CPP/build/bin --out FILE.jsonl

Both keep nothing of earlier prompts, and no prompt comes twice. Without --llama: ours alone.
"""

import asyncio
import random
import time
from pathlib import Path

from harness import Server, body_of, llama, median, ours, parser, random_prompt, report, stream, table


async def tokens_per_s(server: Server, streams: int, tokens: int, chance: random.Random) -> float:
    bodies = [body_of(server, random_prompt(server, 16, chance), tokens) for _ in range(streams)]
    began = time.monotonic()
    done = await asyncio.gather(*(stream(server, body) for body in bodies))
    seconds = max(one.ended for one in done) - began
    for one in done:
        if one.status != 200 or one.error or not one.times:
            raise SystemExit(f"{server.name}: a stream failed with {one.status}: {one.error}")
    return streams * tokens / seconds


async def first_token_s(server: Server, prompt: int, chance: random.Random) -> float:
    one = await stream(server, body_of(server, random_prompt(server, prompt, chance), 1))
    if not one.times:
        raise SystemExit(f"{server.name}: no token of a long prompt: {one.status} {one.error}")
    return one.times[0] - one.sent


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--llama", type=Path, help="llama-server, or its folder")
    p.add_argument("--gguf", type=Path, help="the model for llama-server, of the same bits a weight")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--tokens", type=int, default=96, help="of each stream")
    p.add_argument("--prompt", type=int, default=512, help="tokens of the prompt whose first token is waited for")
    p.add_argument("--streams", default="1,4,16")
    a = p.parse_args()
    counts = [int(count) for count in a.streams.split(",")]
    context = max(a.prompt, a.tokens + 16) + 32
    servers = [ours(a, "--slots", max(counts), "--context", context, "--no-prefix-cache")]
    if a.llama is not None:
        servers.append(llama(a, max(counts), context))
    chance = random.Random(1)
    prompt = min(a.prompt, servers[0].context - 8)
    rates = {(server.name, count): [] for server in servers for count in counts}
    firsts = {server.name: [] for server in servers}
    for server in servers:  # what is made with the first request
        asyncio.run(tokens_per_s(server, max(counts), 4, chance))
    for number in range(a.rounds):
        for count in counts:
            for server in servers if number % 2 == 0 else servers[::-1]:
                rates[server.name, count].append(asyncio.run(tokens_per_s(server, count, a.tokens, chance)))
        for server in servers:
            firsts[server.name] += [asyncio.run(first_token_s(server, prompt, chance)) for _ in range(2)]
    for server in servers:
        server.stop()
    rows = [("figure", "measured", "wanted")]
    figures: dict = {"rounds": a.rounds, "prompt": prompt}
    wanted = {1: 1.0, 4: 1.1, 16: 1.2}
    for count in counts:
        mine = median(rates["memlayers", count])
        figures[f"tokens_per_s_{count}"] = mine
        text, want = f"{mine:.1f} tokens/s", ""
        if len(servers) > 1:
            theirs = median(rates["llama-server", count])
            # Of each round by itself: what disturbs one disturbs both.
            ratio = median([x / y for x, y in zip(rates["memlayers", count], rates["llama-server", count])])
            figures |= {f"llama_tokens_per_s_{count}": theirs, f"ratio_{count}": ratio}
            text += f", llama-server {theirs:.1f}: {ratio:.2f} times"
            want = f"at least {wanted[count]:.1f} times" if count in wanted else ""
        rows.append((f"{count} streams together", text, want))
    mine = median(firsts["memlayers"])
    figures["first_token_s"] = mine
    text, want = f"{mine:.3f} s", ""
    if len(servers) > 1:
        theirs = median(firsts["llama-server"])
        figures |= {"llama_first_token_s": theirs, "first_token_ratio": mine / theirs}
        text += f", llama-server {theirs:.3f} s: {mine / theirs:.2f} times"
        want = "at most 1.0 times"
    rows.append((f"first token of {prompt}", text, want))
    table(rows)
    report(a, figures)


if __name__ == "__main__":
    main()
