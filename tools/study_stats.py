# SPDX-License-Identifier: Apache-2.0
"""The statistics of the study: the compute at which a dense decoder is as good, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

Losses = Mapping[int, Sequence[float]]  # seed -> nats of each answer, the facts in one order


def equal_compute(multiples: Sequence[float], losses: Sequence[float], loss: float) -> float:
    """The least multiple of FLOPs at which the dense curve, straight in log FLOPs, comes down to `loss`.

    0 where the first dense arm is better already, infinity where none of them is.
    """
    if len(multiples) != len(losses) or not multiples:
        raise ValueError(f"expected a loss for each of {len(multiples)} multiples, got {len(losses)}")
    if list(multiples) != sorted(set(multiples)) or multiples[0] <= 0:
        raise ValueError(f"expected ascending multiples above 0, got {list(multiples)}")
    if loss > losses[0]:
        return 0.0
    for i, reached in enumerate(losses):
        if reached > loss:
            continue
        if i == 0:
            return float(multiples[0])
        before = losses[i - 1]
        part = (before - loss) / (before - reached)
        low, high = np.log(multiples[i - 1]), np.log(multiples[i])
        return float(np.exp(low + part * (high - low)))
    return float("inf")


def interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float]:
    """Of a bootstrap's values, infinities among them: no mean of two is taken."""
    ordered = np.sort(np.asarray(values, dtype=float))
    low = int(np.floor((1 - share) / 2 * (len(ordered) - 1)))
    high = int(np.ceil((1 + share) / 2 * (len(ordered) - 1)))
    return float(ordered[low]), float(ordered[high])


def means(arm: Losses, seeds: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The mean nats an answer of each draw: seeds [B, S] as places in the arm's own, counts [B, facts]."""
    table = np.asarray([arm[seed] for seed in sorted(arm)], dtype=float)  # [seeds, facts]
    by_seed = counts @ table.T / table.shape[1]  # [B, seeds]
    return np.take_along_axis(by_seed, seeds % table.shape[0], axis=1).mean(axis=1)


def bootstrap(dense: Mapping[float, Losses], arm: Losses, draws: int = 2000, seed: int = 0) -> list[float]:
    """equal_compute() of resampled facts and seeds, the same ones for all arms: the pairs stay pairs.

    `dense`: multiple of FLOPs -> its losses. An arm of fewer seeds than the others has them drawn again.
    """
    facts = {len(one) for losses in (*dense.values(), arm) for one in losses.values()}
    if len(facts) != 1:
        raise ValueError(f"expected the same facts in all arms, got {sorted(facts)}")
    count = facts.pop()
    most_seeds = max(len(losses) for losses in (*dense.values(), arm))
    random = np.random.default_rng(seed)
    multiples = sorted(dense)
    found: list[float] = []
    at_once = max(1, min(draws, 20_000_000 // count))
    while len(found) < draws:
        some = min(at_once, draws - len(found))
        counts = random.multinomial(count, np.full(count, 1 / count), size=some)
        seeds = random.integers(most_seeds, size=(some, most_seeds))
        curve = [means(dense[m], seeds, counts) for m in multiples]
        own = means(arm, seeds, counts)
        found += [
            equal_compute(multiples, [c[i] for c in curve], own[i]) for i in range(some)
        ]
    return found


def scaling_line(sizes: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """Of the straight line of least squares through losses over log2(sizes): its slope, and R^2."""
    if len(sizes) != len(losses) or len(set(sizes)) < 3:
        raise ValueError(f"expected a loss for each of at least three sizes, got {len(losses)} of {list(sizes)}")
    x, y = np.log2(np.asarray(sizes, dtype=float)), np.asarray(losses, dtype=float)
    slope, start = np.polyfit(x, y, 1)
    spread = float(np.sum((y - y.mean()) ** 2))
    left = float(np.sum((y - start - slope * x) ** 2))
    return float(slope), 1.0 - left / spread if spread > 0 else 1.0


def mean_of(arm: Losses) -> float:
    return float(np.mean([np.mean(arm[seed]) for seed in sorted(arm)]))


def compare(dense: Mapping[float, Losses], arm: Losses, draws: int = 2000) -> tuple[float, float, float]:
    """The multiple of FLOPs and its 95 % interval."""
    multiples = sorted(dense)
    value = equal_compute(multiples, [mean_of(dense[m]) for m in multiples], mean_of(arm))
    return (value, *interval(bootstrap(dense, arm, draws)))
