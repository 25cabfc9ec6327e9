# SPDX-License-Identifier: Apache-2.0
"""Which modules of a model a memory goes to: by pattern, number or predicate."""

import re
from collections.abc import Callable, Iterable, Sequence

from torch import nn

Layers = str | Sequence[str | int] | Callable[[str, nn.Module], bool]

# What models call the feed-forward block of decoder layer N.
_FEED_FORWARD = ("mlp", "feed_forward", "ffn", "ff")
_LISTS = ("layers", "h", "blocks", "block", "layer")


def matching_blocks(function: str, model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """The modules that `layers` names, by name, in the model's order.

    A string: a pattern of names, in which * stands for any letters but a dot and {8,16} for either
    of these. A list: patterns, or the numbers of decoder layers whose feed-forward block is meant.
    A predicate: of name and module. Raises ValueError where one of them matches nothing, with the
    modules that there are.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if callable(layers):
        chosen = {name for name, module in modules.items() if layers(name, module)}
        if not chosen:
            raise ValueError(
                f"{function}: expected layers to choose modules, it chose none of "
                f"{_summary(modules)}"
            )
    else:
        given: Sequence[str | int] = [layers] if isinstance(layers, str) else list(layers)
        if not given:
            raise ValueError(f"{function}: expected layers to name modules, got an empty list")
        chosen = set().union(*(_matches(function, modules, part) for part in given))
    return {name: module for name, module in modules.items() if name in chosen}


def _matches(function: str, modules: dict[str, nn.Module], part: str | int) -> set[str]:
    if isinstance(part, bool) or not isinstance(part, (str, int)):
        raise TypeError(
            f"{function}: expected layers as a pattern, a list of patterns and numbers, or a "
            f"predicate, got {type(part).__name__} {part!r}"
        )
    if isinstance(part, str):
        wanted = re.compile(_expression(part))
    else:
        where = "|".join(_LISTS)
        wanted = re.compile(rf"(.*\.)?({where})\.{part}\.({'|'.join(_FEED_FORWARD)})")
    found = {name for name in modules if wanted.fullmatch(name)}
    if not found:
        text = repr(part) if isinstance(part, str) else f"{part}, the number of a decoder layer,"
        raise ValueError(
            f"{function}: expected layers to match modules, got {text} which matches none of "
            f"{_summary(modules)}"
        )
    return found


def _expression(pattern: str) -> str:
    """A regular expression of the pattern."""
    out = ""
    for piece in re.findall(r"\{[^{}]*\}|\*|[^{*]+|.", pattern):
        if piece == "*":
            out += r"[^.]*"
        elif piece.startswith("{") and piece.endswith("}"):
            out += "(" + "|".join(re.escape(p.strip()) for p in piece[1:-1].split(",")) + ")"
        else:
            out += re.escape(piece)
    return out


def _summary(names: Iterable[str]) -> str:
    """The names, those that differ in numbers alone as one: model.layers.{0..29}.mlp."""
    groups: dict[str, list[tuple[int, ...]]] = {}
    for name in names:
        parts = name.split(".")
        if any(part.isdecimal() for part in parts) and parts[-1].isdecimal():
            continue  # the layer itself: what is in it is named
        numbers = tuple(int(part) for part in parts if part.isdecimal())
        key = ".".join("#" if part.isdecimal() else part for part in parts)
        groups.setdefault(key, []).append(numbers)
    texts = []
    for key, places in groups.items():
        text = key
        for numbers in zip(*places, strict=True):
            low, high = min(numbers), max(numbers)
            text = text.replace("#", f"{{{low}..{high}}}" if low < high else str(low), 1)
        texts.append(text)
    most = 40
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")


def width_of(function: str, model: nn.Module, name: str, block: nn.Module) -> int:
    """The width that a block takes and gives. Raises ValueError where that is not one number."""
    first, last = widths_of(model, block)
    if first is None:
        raise ValueError(
            f"{function}: expected dim, the width of {name}, in which there is no linear layer"
        )
    if first != last:
        raise ValueError(
            f"{function}: expected {name} to give as many numbers as it takes, it takes {first} and "
            f"gives {last}"
        )
    return first


def widths_of(model: nn.Module, block: nn.Module) -> tuple[int | None, int | None]:
    """What a block takes and gives: by its first and last matrix, or the model's width; or None."""
    sizes = [size for module in block.modules() if (size := _in_and_out(module)) is not None]
    width = getattr(getattr(model, "config", None), "hidden_size", None)
    if not sizes:
        return (width, width) if isinstance(width, int) else (None, None)
    first, last = sizes[0][0], sizes[-1][1]
    is_routed = first == width and len(sizes) > 1  # experts are no linear layers, their router is
    return first, first if is_routed else last


def _in_and_out(module: nn.Module) -> tuple[int, int] | None:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight = getattr(module, "weight", None)
    if type(module).__name__ == "Conv1D" and isinstance(weight, nn.Parameter):
        return weight.size(0), weight.size(1)  # transformers' of GPT-2, the other way round
    return None
