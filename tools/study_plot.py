# SPDX-License-Identifier: Apache-2.0
"""Plots of the study as SVG: points with names, a line through some of them, a logarithmic axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 34, 52


@dataclass(frozen=True)
class Point:
    name: str
    x: float
    y: float
    is_on_line: bool = False


def ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers that cover low .. high."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span / 4))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= 8:
            step *= factor
            break
    first = math.floor(low / step)
    last = math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    found = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        found += [m * 10.0**power for m in (1, 2, 5)]
    inside = [t for t in found if low <= t <= high]
    return inside or [low, high]


def number(value: float) -> str:
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def plot(title: str, x_name: str, y_name: str, points: list[Point]) -> str:
    """One file's text; the points of the line are joined in the order of x."""
    if not points:
        raise ValueError(f"{title}: expected points, got none")
    xs = [p.x for p in points]
    low_x, high_x = min(xs) / 1.25, max(xs) * 1.6
    marks = ticks(min(0.0, *(p.y for p in points)), max(p.y for p in points))
    low_y, high_y = marks[0], marks[-1] if marks[-1] > marks[0] else marks[0] + 1

    def at_x(x: float) -> float:
        part = math.log(x / low_x) / math.log(high_x / low_x)
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{WIDTH / 2:g}" y="20" text-anchor="middle" font-size="14">{escape(title)}</text>',
    ]
    for y in marks:
        out.append(f'<path d="M{LEFT} {at_y(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{number(y)}</text>')
    for x in log_ticks(low_x, high_x):
        out.append(f'<path d="M{at_x(x):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
        out.append(f'<text x="{at_x(x):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number(x)}</text>')
    line = sorted((p for p in points if p.is_on_line), key=lambda p: p.x)
    if len(line) > 1:
        path = "L".join(f"{at_x(p.x):.1f} {at_y(p.y):.1f}" for p in line)
        out.append(f'<path d="M{path}" fill="none" stroke="#36c" stroke-width="2"/>')
    for p in points:
        colour = "#36c" if p.is_on_line else "#c33"
        out.append(f'<circle cx="{at_x(p.x):.1f}" cy="{at_y(p.y):.1f}" r="4" fill="{colour}"/>')
        out.append(f'<text x="{at_x(p.x) + 7:.1f}" y="{at_y(p.y) - 5:.1f}" fill="{colour}">{escape(p.name)}</text>')
    out.append(f'<text x="{WIDTH / 2:g}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_name)}</text>')
    out.append(
        f'<text transform="translate(16 {HEIGHT / 2:g}) rotate(-90)" text-anchor="middle">{escape(y_name)}</text>'
    )
    return "\n".join([*out, "</svg>"]) + "\n"
