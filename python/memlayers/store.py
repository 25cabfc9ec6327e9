# SPDX-License-Identifier: Apache-2.0
"""The store of a model's pool: `memlayers patch` as an object."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike, path
from types import TracebackType
from typing import Any, Literal

import torch

from ._arguments import path_of, told
from .patch import Patch, read_patch, write_patch


@dataclass
class PatchInfo:
    """A patch of a store."""

    id: str
    state: Literal["applied", "kept", "rolled back"]
    rows: int
    erased: int
    sub_keys: int
    notes: dict[str, str]


@dataclass
class Committed:
    """What an edit answers: it is on the disk. was_there: it had been done before. conflicts: slots
    that another patch writes too, with the earlier and the later one, which wins; the same of
    sub-keys by layer, head, half and number."""

    version: int
    was_there: bool
    conflicts: list[tuple[int, str, str]]
    sub_key_conflicts: list[tuple[int, int, int, int, str, str]]


class Store:
    """The one writer of a model's pool, as long as it is open: close it, or use it in `with`.

    model: its folder, or a run's, whose newest checkpoint is meant. Processes that serve the model
    see an edit with their next request. A patch is named by its id, or the beginning of it. Edits
    of several patches are of all or of none. Raises Error, having changed nothing.
    """

    def __init__(self, model: str | PathLike[str]) -> None:
        place = path_of("Store", model)
        self._it: Any = told(lambda: torch.classes.memlayers.Store(place))

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write; what was edited stays."""
        self._it.close()

    def apply(self, *patches: Patch | str | PathLike[str]) -> list[Committed]:
        """Applies patches, or patch files, one after the other."""
        with tempfile.TemporaryDirectory() as made:
            files = []
            for number, patch in enumerate(patches):
                if isinstance(patch, Patch):
                    files.append(path.join(made, f"{number}.safetensors"))
                    write_patch(files[-1], patch)
                else:
                    files.append(path_of("apply", patch))
            return _all(lambda: self._it.apply(files))

    def rollback(self, *ids: str) -> list[Committed]:
        """Takes patches back, wherever in the stack: the pool is what the others make."""
        return _all(lambda: self._it.rollback(list(ids)))

    def reapply(self, *ids: str) -> list[Committed]:
        """Applies patches again that were rolled back, on top."""
        return _all(lambda: self._it.reapply(list(ids)))

    def keep(self, id: str) -> Committed:
        """This patch, and those below it, will not be rolled back."""
        return _committed(json.loads(told(lambda: self._it.keep(id))))

    def compact(self, part: float = 0.25) -> Committed:
        """Folds kept patches into the base; chunks of which more than `part` is patched anew."""
        return _committed(json.loads(told(lambda: self._it.compact(part))))

    def patches(self) -> list[PatchInfo]:
        """Those that there are, the first applied first, then those that were rolled back."""
        return [PatchInfo(**fields) for fields in json.loads(told(self._it.patches))]

    def patch(self, id: str) -> Patch:
        """What a patch of the store writes."""
        with tempfile.TemporaryDirectory() as made:
            file = os.path.join(made, "patch.safetensors")
            told(lambda: self._it.export_patch(id, file))
            return read_patch(file)

    @property
    def version(self) -> int:
        """Grows with each edit."""
        version: int = told(self._it.version)
        return version

    def digest(self) -> str:
        """Of the rows as they are read, as `memlayers inspect --digest` prints it."""
        digest: str = told(self._it.digest)
        return digest

    def verify(self) -> None:
        """Reads everything, and raises Error at the first checksum that does not hold."""
        told(self._it.verify)

    def free_slots(self) -> list[int]:
        """Those that patches have erased, ascending."""
        slots: list[int] = told(self._it.free_slots)
        return slots

    def writer_of(self, slot: int) -> str | None:
        """The patch that wrote a slot's row; None for one of the base. Raises IndexError."""
        writer: str | None = told(lambda: self._it.writer_of(slot))
        return writer


def _all(act: Callable[[], str]) -> list[Committed]:
    return [_committed(fields) for fields in json.loads(told(act))]


def _committed(fields: dict[str, Any]) -> Committed:
    fields["conflicts"] = [tuple(each) for each in fields["conflicts"]]
    fields["sub_key_conflicts"] = [tuple(each) for each in fields["sub_key_conflicts"]]
    return Committed(**fields)
