# SPDX-License-Identifier: Apache-2.0
"""Tables and plots of docs/study.md, all of them from the results that are kept."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study_data import bits_of_answer
from study_plot import Point, plot
from study_runs import RATES, Study, StudyError, records
from study_stats import Losses, compare, mean_of, scaling_line

WHOLE = ("glosses", 48_000, 3)  # set, facts and seeds of the study that the claim is of
BEGIN, END = "<!-- tools/study.py --table --write: from here -->", "<!-- to here -->"
FIRST = "dense-1x"
Record = dict[str, Any]


@dataclass(frozen=True)
class Page:
    tables: str
    plots: dict[str, str] = field(default_factory=dict)  # file name -> text


def short(count: float) -> str:
    for unit in ("", "k", "M", "G"):
        if abs(count) < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}T"


def text_table(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]])


def by_arm(found: list[Record], exposures: int) -> dict[str, dict[int, Record]]:
    """The main runs: arm -> seed -> record; of several rates the best of those with the most seeds."""
    rates: dict[str, dict[float, dict[int, Record]]] = defaultdict(lambda: defaultdict(dict))
    for record in found:
        if not record["trial"] and record["exposures"] == exposures:
            rates[record["arm"]][record["rate"]][record["seed"]] = record

    def rank(seeds: dict[int, Record]) -> tuple[int, float]:
        return -len(seeds), mean([mean(record["nll"]) for record in seeds.values()])

    return {arm: min(tried.values(), key=rank) for arm, tried in rates.items()}


def losses(seeds: dict[int, Record]) -> Losses:
    return {seed: record["nll"] for seed, record in seeds.items()}


def recall(record: Record) -> float:
    return 100 * record["recalled"].count("1") / len(record["recalled"])


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def is_dense_curve(arm: str) -> bool:
    """The dense arms of one shape, of which the curve is made."""
    return arm.startswith("dense-") and arm.removeprefix("dense-").removesuffix("x").isdigit()


def is_of_the_slots(arm: str) -> bool:
    """The memory arms that differ in their slots alone, through which the scaling line goes."""
    return arm.startswith("memory-2e") and arm.removeprefix("memory-2e").isdigit()


def stored_bits(seeds: dict[int, Record]) -> float:
    """Of answers of known entropy, in the mean over seeds: what the model says of each beyond chance."""
    whole = bits_of_answer()
    return mean([
        sum(max(0.0, whole - nll / math.log(2)) for nll in record["nll"]) for record in seeds.values()
    ])


def order(arms: dict[str, dict[int, Record]]) -> list[str]:
    def place(arm: str) -> tuple[bool, float, float, str]:
        record = next(iter(arms[arm].values()))
        return (not is_dense_curve(arm), record["flops"], record["parameters"]["pool"], arm)

    return sorted(arms, key=place)


def outside_pool(record: Record) -> float:
    return float(record["parameters"]["dense"] + record["parameters"]["memory"])


def table_of_sizes(arms: dict[str, dict[int, Record]]) -> list[list[str]]:
    first = next(iter(arms[FIRST].values()))["flops"] if FIRST in arms else None
    rows = [["arm", "FLOPs a token", "of dense-1x", "parameters", "in the pool", "bytes a token", "core s"]]
    for arm in order(arms):
        some = next(iter(arms[arm].values()))
        rows.append([
            arm,
            short(some["flops"]),
            f"{some['flops'] / first:.2f}" if first else "",
            short(outside_pool(some)),
            short(some["parameters"]["pool"]),
            short(some["bytes_a_token"]),
            ", ".join(f"{arms[arm][s]['cpu_s']:.0f}" for s in sorted(arms[arm])),
        ])
    return rows


def table_of_scores(arms: dict[str, dict[int, Record]]) -> list[list[str]]:
    rows = [["arm", "seeds", "nats an answer", "recalled, %", "unseen phrasing, %"]]
    for arm in order(arms):
        by_seed = [arms[arm][seed] for seed in sorted(arms[arm])]
        rows.append([
            arm,
            ", ".join(str(record["seed"]) for record in by_seed),
            ", ".join(f"{mean(record['nll']):.2f}" for record in by_seed),
            ", ".join(f"{recall(record):.1f}" for record in by_seed),
            ", ".join(f"{100 * record['unseen_recall']:.1f}" for record in by_seed),
        ])
    rows.append(["a dictionary", "", "0", "100", "0"])
    return rows


def table_of_bits(arms: dict[str, dict[int, Record]]) -> list[list[str]]:
    rows = [["arm", "bits stored", "bits a parameter", "bits a parameter of the pool"]]
    for arm in order(arms):
        some = next(iter(arms[arm].values()))
        bits, pool = stored_bits(arms[arm]), some["parameters"]["pool"]
        all_of_them = outside_pool(some) + pool
        rows.append([arm, short(bits), f"{bits / all_of_them:.3f}", f"{bits / pool:.3f}" if pool else ""])
    return rows


def multiple(value: float, curve: list[float]) -> str:
    if value == 0:
        return f"below {curve[0]:g}"
    return f"above {curve[-1]:g}" if math.isinf(value) else f"{value:.2f}"


def table_of_compute(arms: dict[str, dict[int, Record]]) -> list[list[str]]:
    if FIRST not in arms:
        return []
    base = next(iter(arms[FIRST].values()))["flops"]
    dense = {
        round(next(iter(arms[arm].values()))["flops"] / base, 2): losses(arms[arm]) for arm in arms if is_dense_curve(arm)
    }
    curve = sorted(dense)
    others = [arm for arm in order(arms) if not is_dense_curve(arm)]
    if len(curve) < 2 or not others:
        return []
    rows = [["arm", "nats an answer", "dense compute of equal loss", "95 % interval", "seeds"]]
    for arm in others:
        own = losses(arms[arm])
        value, low, high = compare(dense, own)
        rows.append([
            arm,
            f"{mean_of(own):.2f}",
            multiple(value, curve),
            f"{multiple(low, curve)} to {multiple(high, curve)}",
            str(len(own)),
        ])
    return rows


def scaling(arms: dict[str, dict[int, Record]]) -> str:
    """The line of loss against log(slots), in a sentence; nothing where there are fewer than three pools."""
    pools = [
        (float(next(iter(seeds.values()))["parameters"]["pool"]), mean_of(losses(seeds)))
        for arm, seeds in arms.items()
        if is_of_the_slots(arm)
    ]
    if len({pool for pool, _ in pools}) < 3:
        return ""
    slope, fit = scaling_line([pool for pool, _ in pools], [loss for _, loss in pools])
    return (
        f"A straight line of loss over log(slots) through the {len(pools)} memory arms: {slope:+.3f} nats with twice "
        f"the slots, R^2 {fit:.3f}."
    )


def table_of_rates(found: list[Record], is_trial: bool) -> list[list[str]]:
    """Of trials, or of the arms that learned all facts at several rates."""
    tried: dict[str, dict[float, float]] = defaultdict(dict)
    for record in found:
        if record["trial"] == is_trial and record["seed"] == 1:
            tried[record["arm"]][record["rate"]] = mean(record["nll"])
    tried = {arm: rates for arm, rates in tried.items() if is_trial or len(rates) > 1}
    if not tried:
        return []
    columns = sorted({*RATES, *(rate for rates in tried.values() for rate in rates)})
    rows = [["arm", *(f"rate {rate:g}" for rate in columns)]]
    for arm in sorted(tried):
        rows.append([arm, *(f"{tried[arm][r]:.2f}" if r in tried[arm] else "" for r in columns)])
    return rows


def plots(study: Study, arms: dict[str, dict[int, Record]]) -> dict[str, str]:
    made = {}

    def add(name: str, title: str, x_name: str, y_name: str, x: Any, y: Any) -> None:
        points = [
            Point(arm, x(seeds), y(seeds), is_dense_curve(arm))
            for arm, seeds in ((arm, list(arms[arm].values())) for arm in order(arms))
        ]
        made[f"study_{study.name}_{name}.svg"] = plot(f"{title}, {study.name}", x_name, y_name, points)

    def nats(seeds: list[Record]) -> float:
        return mean([mean(record["nll"]) for record in seeds])

    flops = "FLOPs a token, forward"
    add("loss_flops", "Loss and compute", flops, "nats an answer", lambda s: s[0]["flops"], nats)
    add("recall_flops", "Recall and compute", flops, "recalled exactly, %", lambda s: s[0]["flops"],
        lambda s: mean([recall(record) for record in s]))  # fmt: skip
    add("loss_seconds", "Loss and time", "seconds of a core, training", "nats an answer",
        lambda s: mean([record["cpu_s"] for record in s]), nats)  # fmt: skip
    add("loss_bytes", "Loss and bytes", "bytes read to decode a token", "nats an answer",
        lambda s: s[0]["bytes_a_token"], nats)  # fmt: skip
    with_pool = {arm: s for arm, s in arms.items() if is_of_the_slots(arm)}
    if len(with_pool) > 1:
        points = [
            Point(arm, next(iter(s.values()))["parameters"]["pool"], nats(list(s.values())), True)
            for arm, s in with_pool.items()
        ]
        made[f"study_{study.name}_loss_slots.svg"] = plot(
            f"Loss and slots, {study.name}", "parameters of the pool", "nats an answer", points
        )
    return made


def section(study: Study) -> Page:
    found = records(study)
    parts, made = [f"## {study.facts:,} facts, answers: {study.kind}"], {}
    for exposures in sorted({r["exposures"] for r in found if not r["trial"]}):
        arms = by_arm(found, exposures)
        parts.append(f"Each fact {exposures} times, in four phrasings; a number for each seed.")
        parts.append(markdown(table_of_scores(arms)))
        parts.append(markdown(table_of_sizes(arms)))
        if study.kind == "random":
            parts.append(markdown(table_of_bits(arms)))
        if compute := table_of_compute(arms):
            parts.append(markdown(compute))
        if line := scaling(arms):
            parts.append(line)
        if exposures == study.exposures:
            made = plots(study, arms)
            parts += [f"![{name.removesuffix('.svg').replace('_', ' ')}]({name})" for name in made]
    for is_trial, what in ((True, "a quarter of the facts"), (False, "all facts, seed 1")):
        if rates := table_of_rates([r for r in found if r["exposures"] == study.exposures], is_trial):
            parts.append(f"Learning rates, nats an answer after learning {what}:")
            parts.append(markdown(rates))
    return Page("\n\n".join(parts), made)


def progress(study: Study) -> str:
    """How far the whole study is."""
    kind, facts, seeds = WHOLE
    whole = Study(kind, facts, results=study.results, arms=study.arms)
    done = {(r["arm"], r["seed"]) for r in records(whole) if not r["trial"] and r["exposures"] == whole.exposures}
    arms = [path.stem for path in study.arms.glob("*.toml")]
    ended = sum((arm, seed) in done for arm in arms for seed in range(1, seeds + 1))
    return (
        f"Of the whole study, {len(arms)} arms of {seeds} seeds with {facts:,} facts, "
        f"{ended} of {len(arms) * seeds} runs have ended."
    )


def page(study: Study) -> Page:
    """Of all results that are kept beside this study's."""
    sections = []
    for path in sorted(study.results.glob("*-*.jsonl")):
        kind, facts = path.stem.rsplit("-", 1)
        one = Study(kind, int(facts), study.exposures, results=study.results, arms=study.arms)
        if records(one):
            sections.append(section(one))
    if not sections:
        return Page("No run has ended yet. " + progress(study))
    made = {name: text for one in sections for name, text in one.plots.items()}
    return Page("\n\n".join([progress(study), *(one.tables for one in sections)]), made)


def written(before: str, made: Page) -> str:
    """The page's text with the tables between its two marks."""
    if before.count(BEGIN) != 1 or before.count(END) != 1 or before.index(BEGIN) > before.index(END):
        raise StudyError(f"study.md: expected the lines {BEGIN!r} and {END!r} once each")
    head, rest = before.split(BEGIN)
    return head + BEGIN + "\n\n" + made.tables + "\n\n" + END + rest.split(END)[1]


def write(made: Page, docs: Path) -> None:
    path = docs / "study.md"
    text = written(path.read_text(encoding="utf-8"), made)
    for name, picture in made.plots.items():
        (docs / name).write_text(picture, encoding="utf-8")
    path.write_text(text, encoding="utf-8")
