# SPDX-License-Identifier: Apache-2.0
"""Templates made at random from what chat templates are made of, right ones and wrong ones."""

from __future__ import annotations

import random
from typing import Any

VARIABLES: dict[str, Any] = {
    "i": 7,
    "z": 0,
    "f": 2.5,
    "s": " Straße, It's <b>\n\tzwei ",
    "e": "",
    "u": "aébb日😀b",
    "t": True,
    "n": None,
    "l": [3, 1, 2, 1],
    "w": ["b", "A", "c", "a"],
    "d": {"b": 1, "a": "x", "c": [1, {"k": None}], "items": 5},
    "m": [
        {"role": "user", "content": "hi", "n": 2},
        {"role": "assistant", "content": None, "n": 1},
        {"role": "User", "content": ["p", 'q"'], "n": 2},
    ],
}
NAMES = [*VARIABLES, "missing", "x"]
BINARY = [
    "+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or",
]  # fmt: skip
TESTS = [
    "defined", "undefined", "none", "string", "mapping", "number", "integer", "float", "boolean", "iterable",
    "sequence", "true", "false", "lower", "upper", "odd", "even", "divisibleby(2)", "divisibleby 3", "sameas(none)",
    "in([1, 'a'])", "eq(1)", "ne 'a'", "gt(1)", "lt(2)", "callable",
]  # fmt: skip
FILTERS = [
    "abs", "capitalize", "count", "default('q')", "default('q', true)", "d", "dictsort", "dictsort(by='value')",
    "dictsort(reverse=true)", "first", "float", "float(1.5)", "int", "int(9)", "items|list", "join", "join('-')",
    "join(', ', attribute='role')", "last", "length", "list", "lower", "upper", "title", "trim", "trim('ab ')",
    "string", "map('upper')|list", "map(attribute='n')|list", "map(attribute='q', default=0)|list",
    "map('string')|join", "max", "min", "min(attribute='n')", "replace('b', 'XY')", "replace('', '.')",
    "replace('b', '', 1)", "reverse|list", "round", "round(1)", "round(0, 'floor')", "select|list",
    "select('odd')|list", "select('string')|list", "reject('none')|list", "selectattr('content')|list",
    "selectattr('n', 'eq', 2)|list", "selectattr('role', 'in', ['user'])|list|length", "rejectattr('content')|list",
    "sort", "sort(reverse=true)", "sort(case_sensitive=true)", "sort(attribute='n')", "sort(attribute='role,n')",
    "sum", "sum(attribute='n')", "tojson", "tojson(indent=2)", "tojson(sort_keys=true)", "tojson(ensure_ascii=true)",
    "tojson(separators=(',', ':'))", "unique|list", "unique(attribute='n')|list", "wordcount", "indent",
    "indent(2, true)", "indent('> ', blank=true)", "center(9)", "truncate(8)", "truncate(6, true, '..')",
    "batch(2)|list", "batch(3, 0)|list", "slice(2)|list", "groupby('n')", "urlencode", "format(1)",
   
]  # fmt: skip
METHODS = [
    "strip()", "lstrip()", "rstrip('b ')", "split()", "split('b')", "split(' ', 1)", "split(none, 1)",
    "rsplit('b', 1)", "rsplit(none, 1)", "splitlines()", "startswith('a')", "startswith((' ', 'a'))", "endswith('b')",
    "upper()", "lower()", "title()", "capitalize()", "swapcase()", "replace('b', 'c')", "replace('b', 'c', 1)",
    "find('b')", "rfind('b')", "index('b')", "count('b')", "count('')", "isdigit()", "isalpha()", "isspace()",
    "isupper()", "islower()", "isalnum()", "join(w)", "format(1, a=2)", "zfill(9)", "ljust(9, '.')", "rjust(9)",
    "center(9)", "partition('b')", "rpartition('b')", "removeprefix('a')", "removesuffix('b')", "get('a')",
    "get('zz')", "get('zz', 4)", "items()", "items()|list", "keys()|list", "values()|list", "copy()", "index(1)",
    "count(1)", "role", "content", "a", "b.c", "append(1)", "update({})", "pop()",
]  # fmt: skip
SUBSCRIPTS = [
    "0", "-1", "1", "9", "'a'", "'role'", ":", "1:", ":-1", "::2", "::-1", "1:3", "-2:", "3:1:-1", "none",
    "i",
]  # fmt: skip
LITERALS = [
    "0", "1", "-3", "2.5", "1e3", "'ab'", "\"it's\\n\"", "'<|x|>'", "[]", "[1, 'a']", "(1,)", "()", "{}", "{'k': 1}",
    "true", "none", "'%s|%5d|%-4s'", "'{} {a!r:>6}'", "range(3)", "range(5, 0, -2)", "namespace(a=1).a",
    "dict(a=1, b=2)",
]  # fmt: skip


class Maker:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def _one(self, of: list[str]) -> str:
        return self._random.choice(of)

    def expression(self, depth: int) -> str:
        kind = self._random.randrange(11) if depth > 0 else self._random.randrange(2)
        inner = depth - 1
        if kind == 0:
            return self._one(LITERALS)
        if kind == 1:
            return self._one(NAMES)
        if kind in (2, 3):
            return f"({self.expression(inner)} {self._one(BINARY)} {self.expression(inner)})"
        if kind in (4, 5):
            return f"({self.expression(inner)})|{self._one(FILTERS)}"
        if kind == 6:
            return f"({self.expression(inner)} is {self._one(['', 'not '])}{self._one(TESTS)})"
        if kind == 7:
            return f"({self.expression(inner)}).{self._one(METHODS)}"
        if kind == 8:
            part = self._one(SUBSCRIPTS)
            # Jinja folds a slice of a constant, and then a wrong one is undefined.
            return f"({self._one(NAMES) if ':' in part else self.expression(inner)})[{part}]"
        if kind == 9:
            otherwise = f" else {self.expression(inner)}" if self._random.random() < 0.8 else ""
            return f"({self.expression(inner)} if {self.expression(inner)}{otherwise})"
        return f"({self._one(['not ', '-', '+'])}{self.expression(inner)})"

    def _tag(self, inside: str) -> str:
        return "{%" + self._one(["", "", "-", "+"]) + f" {inside} " + self._one(["", "", "-", "+"]) + "%}"

    def _space(self) -> str:
        return self._one(["", "", " ", "\n", "\n  ", " a\n", "b", "\n\n  "])

    def body(self, depth: int, in_loop: bool = False) -> str:
        parts = [self.statement(depth, in_loop) for _ in range(self._random.randint(1, 3))]
        return self._space() + "".join(part + self._space() for part in parts)

    def statement(self, depth: int, in_loop: bool) -> str:
        kind = self._random.randrange(13) if depth > 0 else self._random.randrange(3)
        tag, inner = self._tag, depth - 1
        shallow = min(depth, 2)
        if kind < 2:
            sign = self._one(["", "", "-"])
            return "{{" + sign + f" {self.expression(shallow)} " + sign + "}}"
        if kind == 2:
            return tag(f"set {self._one(['x', 'y', 'i', 's'])} = {self.expression(shallow)}")
        if kind == 3:
            return (
                tag(f"if {self.expression(shallow)}") + self.body(inner, in_loop)
                + tag(f"elif {self.expression(shallow)}") + self.body(inner, in_loop)
                + tag("else") + self.body(inner, in_loop) + tag("endif")
            )  # fmt: skip
        if kind in (4, 5):
            what = self._one(["l", "w", "m", "u", "d", "d.items()", "range(3)", self.expression(1)])
            names = "k, v" if what == "d.items()" else self._one(["x", "y"])
            chosen = f" if {self.expression(1)}" if self._random.random() < 0.3 else ""
            of_loop = ["loop.index", "loop.last", "loop.revindex0", "loop.length", names.split(",")[0]]
            shown = "{{ " + self._one(of_loop) + " }}"
            return (
                tag(f"for {names} in {what}{chosen}") + shown + self.body(inner, True) + tag("else")
                + self.body(inner, in_loop) + tag("endfor")
            )  # fmt: skip
        if kind == 6:
            return tag("set x") + self.body(inner) + tag("endset") + "{{ x }}"
        if kind == 7:
            name = "g"
            given = self._one(["", "1", "1, 2", "b=s", "1, b=l", "1, 2, 3"])
            defined = tag(f"macro {name}(a, b='B')") + "{{ a }}{{ b }}" + self.body(inner) + tag("endmacro")
            return defined + f"{{{{ {name}({given}) }}}}"
        if kind == 8:
            return tag("filter upper") + self.body(inner, in_loop) + tag("endfilter")
        if kind == 9:
            return tag(f"with x = {self.expression(1)}, y = x") + self.body(inner, in_loop) + tag("endwith")
        if kind == 10 and in_loop:
            return tag(f"if {self.expression(1)}") + tag(self._one(["break", "continue"])) + tag("endif")
        if kind == 11:
            return "{#" + self._one(["", "-"]) + " note " + self._one(["", "-"]) + "#}"
        return tag("set ns = namespace(v=i)") + tag(f"set ns.v = {self.expression(shallow)}") + "{{ ns.v }}"

    def template(self) -> str:
        return self.body(3) if self._random.random() < 0.5 else "{{ " + self.expression(3) + " }}"
