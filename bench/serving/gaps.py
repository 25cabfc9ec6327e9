#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long streams wait for their next token while something else happens: the p99 gap while a prompt of 2,000 tokens
is taken in, over the median gap of quiet seconds; the p99 gap while an edit of 10,000 rows is applied through
/v1/memory/patches, beside that of quiet seconds just before, and the time until its durable answer. The model is
edited and the edits are taken back: give it a copy.

  bench/serving/gaps.py MODEL --out bench/results/serving/NAME.jsonl
"""

import asyncio
import random
import time

from harness import (
    Crowd,
    Server,
    body_of,
    median,
    ours,
    parser,
    patch_bytes,
    quantile,
    random_prompt,
    report,
    stream,
    table,
)


async def beside_a_prompt(server: Server, a, figures: dict) -> tuple[str, str, str]:
    prompt = min(a.prompt, server.context - 8)
    crowd = Crowd(server, a.streams, 16, min(400, server.context - 20))
    await crowd.all_run()
    quiet, during, firsts = [], [], []
    chance = random.Random(2)
    for _ in range(a.repeat):
        began = time.monotonic()
        await asyncio.sleep(a.quiet)
        quiet += crowd.gaps(began, time.monotonic())
        one = await stream(server, body_of(server, random_prompt(server, prompt, chance), 1))
        if not one.times:
            raise SystemExit(f"the long prompt has no answer: {one.status} {one.error}")
        during += crowd.gaps(one.sent, one.times[0])
        firsts.append(one.times[0] - one.sent)
    await crowd.stop()
    middle, p99 = median(quiet), quantile(during, 0.99)
    figures |= {
        "prompt": prompt,
        "streams": a.streams,
        "quiet_gap_median_s": middle,
        "quiet_gap_p99_s": quantile(quiet, 0.99),
        "prompt_gap_p99_s": p99,
        "prompt_gap_over_median": p99 / middle,
        "prompt_first_token_s": median(firsts),
    }
    text = f"{p99 * 1e3:.1f} ms, median of quiet {middle * 1e3:.1f} ms: {p99 / middle:.2f} times"
    return (f"p99 gap of {a.streams} streams, prompt of {prompt} beside", text, "at most 3 times")


async def beside_edits(server: Server, a, figures: dict) -> list[tuple[str, str, str]]:
    pool = server.get("/v1/memory")
    rows = min(a.rows, pool["slots"])
    chance = random.Random(3)
    files = [patch_bytes(pool, chance.sample(range(pool["slots"]), rows), seed) for seed in range(a.edits)]
    crowd = Crowd(server, 8, 16, min(400, server.context - 20))
    await crowd.all_run()
    quiet, during, answers = [], [], []
    for identity, data in files:
        began = time.monotonic()
        await asyncio.sleep(a.quiet)
        middle = time.monotonic()
        quiet += crowd.gaps(began, middle)
        await asyncio.to_thread(server.post, "/v1/memory/patches", data)
        answered = time.monotonic()
        answers.append(answered - middle)
        # What follows an edit belongs to it: as long as the quiet before.
        await asyncio.sleep(max(0.0, a.quiet - (answered - middle)))
        during += crowd.gaps(middle, time.monotonic())
        await asyncio.to_thread(server.post, f"/v1/memory/patches/{identity}", b"", "DELETE")
        await asyncio.sleep(0.3)
    await crowd.stop()
    before, after = quantile(quiet, 0.99), quantile(during, 0.99)
    figures |= {
        "rows": rows,
        "edits": a.edits,
        "edit_answer_median_s": median(answers),
        "edit_answer_max_s": max(answers),
        "edit_quiet_gap_p99_s": before,
        "edit_gap_p99_s": after,
        "edit_gap_ratio": after / before,
    }
    return [
        (
            f"an edit of {rows} rows, 8 streams beside: durable answer",
            f"median {median(answers):.3f} s, at most {max(answers):.3f} s",
            "within 1 s",
        ),
        (
            "p99 gap of the streams meanwhile",
            f"{after * 1e3:.1f} ms, without edits {before * 1e3:.1f} ms: {100 * (after / before - 1):+.1f} %",
            "at most +10 %",
        ),
    ]


def main() -> None:
    p = parser(__doc__)
    p.add_argument("--prompt", type=int, default=2000)
    p.add_argument("--streams", type=int, default=4)
    p.add_argument("--repeat", type=int, default=8, help="long prompts, one after the other")
    p.add_argument("--rows", type=int, default=10_000)
    p.add_argument("--edits", type=int, default=12)
    p.add_argument("--quiet", type=float, default=3, help="seconds without, before each")
    p.add_argument("--options", default="", help="more of memlayers serve")
    a = p.parse_args()
    server = ours(a, "--no-prefix-cache", *a.options.split())
    figures: dict = {"options": a.options}
    rows = [("figure", "measured", "wanted"), asyncio.run(beside_a_prompt(server, a, figures))]
    has_memory = True
    try:
        server.get("/v1/memory")
    except OSError:
        has_memory = False
    if has_memory:
        rows += asyncio.run(beside_edits(server, a, figures))
    else:
        print("no edits: the model has no memory layers")
    server.stop()
    table(rows)
    report(a, figures)


if __name__ == "__main__":
    main()
