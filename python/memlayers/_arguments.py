# SPDX-License-Identifier: Apache-2.0
"""Calls of the library's readers and writers of files, and arguments of the right types."""

from collections.abc import Callable
from operator import index
from os import PathLike, fspath
from typing import TypeVar

from torch import Tensor

_T = TypeVar("_T")


class Error(RuntimeError):
    """A file is not what it should be; one sentence that names it, what was found and wanted."""


def told(act: Callable[[], _T]) -> _T:
    """act(), an operator on files: what it says of a file becomes an Error of one line.

    ValueError, TypeError and IndexError, which are about arguments, pass as they are.
    """
    try:
        return act()
    except NotImplementedError:
        raise
    except RuntimeError as error:
        raise Error(str(error).split("\n")[0]) from error


def shown(text: object, most: int = 200) -> str:
    """What a file says, as a message can have it: on one line, at no length, moving no cursor."""
    whole = str(text)
    safe = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole[:most])
    return "".join(safe) + ("..." if len(whole) > most else "")


def path_of(function: str, path: str | PathLike[str]) -> str:
    """The path as a string. Raises TypeError for what names no file."""
    text = fspath(path) if isinstance(path, (str, PathLike)) else path
    if not isinstance(text, str):
        raise TypeError(f"{function}: expected a path, got {type(path).__name__}")
    return text


def tensor(function: str, name: str, value: Tensor) -> Tensor:
    """The value without its history. Raises TypeError for what is no tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{function}: expected {name} as a tensor, got {type(value).__name__}")
    return value.detach()


def slot_number(function: str, slot: int) -> int:
    """The slot as an int. Raises TypeError for what is no whole number."""
    try:
        return index(slot)
    except TypeError:
        raise TypeError(
            f"{function}: expected a slot as an int, got {type(slot).__name__}"
        ) from None
