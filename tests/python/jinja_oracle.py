# SPDX-License-Identifier: Apache-2.0
"""Chat templates as transformers renders them: Jinja's immutable sandbox with what transformers sets in it."""

from __future__ import annotations

import copy
import json
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(jinja2.ext.Extension):
    """{% generation %}, which marks what the assistant says."""

    tags = {"generation"}

    def parse(self, parser: Any) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller: Any) -> str:
        return caller()


class Namespace(jinja2.utils.Namespace):
    """One without members that begin with an underscore."""

    def __init__(*args: Any, **members: Any) -> None:
        for name in dict(*args[1:], **members):
            Namespace._check(name)
        jinja2.utils.Namespace.__init__(*args, **members)

    def __setitem__(self, name: str, value: Any) -> None:
        Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name: str) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.exceptions.TemplateError(message)


def environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _tojson
    made.globals.update(raise_exception=_raise_exception, namespace=Namespace, dict=lambda *a, **k: dict(*a, **k))
    return made


class Oracle:
    def __init__(self) -> None:
        self._environment = environment()
        self._last: tuple[str, Any] = ("", None)

    def render(self, source: str, variables: dict[str, Any]) -> str | None:
        """None where Jinja raises anything."""
        try:
            if self._last[0] != source:
                self._last = (source, self._environment.from_string(source))
            return self._last[1].render(**copy.deepcopy(variables))  # |indent would change a list
        except Exception:  # noqa: BLE001
            return None
