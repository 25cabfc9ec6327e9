# SPDX-License-Identifier: Apache-2.0
"""JSON schemas as filters of tokens, against PyPI's jsonschema: what the filter lets out is valid, and what is valid
(of the subset, as Python writes it) the filter lets through."""

import json
import os
import random
import re
import subprocess
from pathlib import Path

import pytest

jsonschema = pytest.importorskip("jsonschema", reason="no jsonschema (PyPI)")

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MEMLAYERS_LIBRARY", ROOT / "build/release/libmemlayers.so")).parent
WALK = BUILD / "json_schema_walk"
WORDS = ["a", "ab", "b", "name", "größe", "漢", "x y", 'q"', "back\\", "tab\t", "\N{PARTY POPPER}", ""]
FORMATS = {"date": "2024-02-29", "date-time": "1999-12-31T23:59:59.5Z", "uuid": "123e4567-e89b-12d3-a456-426614174000"}
PATTERNS = {
    "^[a-z]{2,4}$": "abc",
    "^(ab|c)*x?$": "abcabx",
    "[0-9]+b": "..12b",
    "^\\w+@\\w+\\.(de|org)$": "me@site.org",
    '^"[^"\\\\]*"$': '"ü"',
}


@pytest.fixture(scope="module")
def walk():
    if not WALK.exists():
        pytest.skip(f"{WALK.name} is not built")
    running = subprocess.Popen([WALK, "bytes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(schema, **more):
        running.stdin.write(json.dumps({"schema": json.dumps(schema), **more}) + "\n")
        running.stdin.flush()
        return json.loads(running.stdout.readline())

    yield ask
    running.stdin.close()
    assert running.wait(10) == 0


class Maker:
    """Random schemas, each with a function that makes valid instances in the order in which the filter takes them."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def make(self, depth=3):
        kinds = ["boolean", "null", "string", "integer", "number", "enum", "const", "pattern", "format", "types"]
        if depth > 0:
            kinds += ["object", "array", "tuple", "any_of", "one_of"] * 2
        return getattr(self, self.random.choice(kinds))(depth)

    def boolean(self, _):
        return {"type": "boolean"}, lambda: self.random.random() < 0.5

    def null(self, _):
        return {"type": "null", "title": "nothing"}, lambda: None

    def string(self, _):
        least = self.random.randrange(3)
        most = least + self.random.randrange(4)
        letters = "aé漢\N{PARTY POPPER}\"\\\n\x01/ "
        return (
            {"type": "string", "minLength": least, "maxLength": most},
            lambda: "".join(self.random.choices(letters, k=self.random.randint(least, most))),
        )

    def integer(self, _):
        schema, low, high = {"type": "integer"}, -(10**6), 10**6
        if self.random.random() < 0.7:
            low = self.random.randint(-1200, 1200)
            schema["minimum" if self.random.random() < 0.5 else "exclusiveMinimum"] = low
            low += "exclusiveMinimum" in schema
        if self.random.random() < 0.7:
            high = low + self.random.choice([0, 3, 150, 10**7])
            schema["maximum"] = high
        return schema, lambda: self.random.choice([low, high, self.random.randint(low, high)])

    def number(self, _):
        schema = {"type": "number"}
        if self.random.random() < 0.5:
            return schema, lambda: self.random.choice([0, -1.5, 3.25, 1e6, 12.000001])
        low = self.random.randint(-30, 30)
        high = low + self.random.choice([1, 2, 40])
        schema |= {"exclusiveMinimum" if self.random.random() < 0.5 else "minimum": low, "maximum": high}
        return schema, lambda: self.random.choice([low + 0.5, high, high - 0.25, low + 0.001])

    def enum(self, _):
        values = self.random.sample([*WORDS, 1, -2.5, None, True, [1, "a"], {"k": [], "l": {}}], 4)
        return {"enum": values}, lambda: self.random.choice(values)

    def const(self, _):
        value = self.random.choice([*WORDS, 0, {"z": 1, "a": [None]}])
        return {"const": value}, lambda: value

    def pattern(self, _):
        regex, text = self.random.choice(list(PATTERNS.items()))
        return {"type": "string", "pattern": regex}, lambda: text

    def format(self, _):
        name, text = self.random.choice(list(FORMATS.items()))
        return {"type": "string", "format": name}, lambda: text

    def types(self, _):
        return {"type": ["integer", "null", "string"], "minLength": 1}, lambda: self.random.choice([7, None, "s"])

    def array(self, depth):
        items, make = self.make(depth - 1)
        least = self.random.randrange(3)
        most = least + self.random.randrange(3)
        return (
            {"type": "array", "items": items, "minItems": least, "maxItems": most},
            lambda: [make() for _ in range(self.random.randint(least, most))],
        )

    def tuple(self, depth):
        parts = [self.make(depth - 1) for _ in range(self.random.randint(1, 3))]
        least = self.random.randrange(len(parts) + 1)
        schema = {"type": "array", "prefixItems": [part for part, _ in parts], "items": False, "minItems": least}
        return schema, lambda: [make() for _, make in parts][: self.random.randint(least, len(parts))]

    def object(self, depth):
        names = self.random.sample(WORDS, self.random.randrange(5))
        parts = {name: self.make(depth - 1) for name in names}
        required = [name for name in names if self.random.random() < 0.5]
        schema = {"type": "object", "properties": {name: part for name, (part, _) in parts.items()}}
        schema["required"] = self.random.sample(required, len(required))
        others, make_other = self.make(0)
        kind = self.random.choice(["none", "any", "some"])
        if kind != "any":
            schema["additionalProperties"] = False if kind == "none" else others

        def make():
            value = {n: make() for n, (_, make) in parts.items() if n in required or self.random.random() < 0.5}
            if kind != "none":
                for name in self.random.sample(["other", "nam", "namex", "größ", "a\"b"], self.random.randrange(3)):
                    value[name] = make_other() if kind == "some" else self.random.choice([1, "s", [{"d": None}]])
            return value

        return schema, make

    def any_of(self, depth):
        parts = [self.make(depth - 1) for _ in range(self.random.randint(1, 3))]
        return {"anyOf": [part for part, _ in parts]}, lambda: self.random.choice(parts)[1]()

    def one_of(self, depth):
        inner, make = self.make(depth - 1)
        branches = [
            {"type": "object", "properties": {"kind": {"const": kind}, "value": inner}, "required": ["kind", "value"]}
            for kind in ["a", "ab"]
        ]
        return {"oneOf": branches}, lambda: {"kind": self.random.choice(["a", "ab"]), "value": make()}


def validator(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def written(value, **how):
    return json.dumps(value, ensure_ascii=False, **how)


@pytest.mark.parametrize("seed", range(60))
def test_answers_are_valid_and_what_is_valid_may_come(walk, seed):
    schema, make = Maker(seed).make()
    check = validator(schema)
    texts = []
    for i in range(6):
        value = make()
        check.validate(value)  # the maker is right
        texts.append(written(value, **[{"separators": (",", ":")}, {}, {"indent": 2}][i % 3]))
    got = walk(schema, seed=seed, walks=20, texts=texts)
    assert "refusal" not in got, (schema, got)
    assert got["allowed"] == [True] * len(texts), (schema, texts)
    whole = [answer for answer in got["answers"] if answer is not None]
    # A walk at random seldom finds the end of a pattern.
    assert len(whole) >= (0 if '"pattern"' in json.dumps(schema) else 10)
    for answer in whole:
        check.validate(json.loads(answer))
        assert answer == answer.strip()


def test_a_schema_that_leads_to_itself(walk):
    schema = {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
                "required": ["value"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/tree",
    }  # fmt: skip
    check = validator(schema)
    tree = {"value": 1, "children": [{"value": 2, "children": []}, {"value": 3}]}
    got = walk(schema, seed=1, walks=50, texts=[written(tree)])
    assert got["allowed"] == [True]
    for answer in filter(None, got["answers"]):
        check.validate(json.loads(answer))


@pytest.mark.parametrize("seed", range(40))
def test_what_is_altered_comes_through_only_where_it_is_valid(walk, seed):
    maker = Maker(1000 + seed)
    schema, make = maker.make()
    check = validator(schema)
    texts = []
    for _ in range(30):
        text = written(make(), separators=(",", ":"))
        at = maker.random.randrange(len(text) + 1)
        texts.append(maker.random.choice([text[:at] + text[at + 1 :], text[:at] + maker.random.choice("0a,\"}]x1") + text[at:]]))
    got = walk(schema, texts=texts)
    for text, is_allowed in zip(texts, got["allowed"], strict=True):
        if is_allowed:
            check.validate(json.loads(text))


@pytest.mark.parametrize("seed", range(30))
def test_no_schema_breaks_it(walk, seed):
    """Pieces of schemas put together anyhow: refused in a sentence, or answers come."""
    maker = Maker(seed)
    keywords = ["type", "properties", "items", "enum", "minimum", "pattern", "$ref", "anyOf", "oneOf", "required", "maxLength"]
    values = ["string", "object", 3, -1, 0.5, [], {}, ["a"], "#", "(a", None, True, [{}], {"a": False}, 1e300, "\\ud800"]

    def piece(depth):
        if depth == 0 or maker.random.random() < 0.3:
            return maker.random.choice(values)
        return {name: piece(depth - 1) for name in maker.random.sample(keywords, maker.random.randint(1, 3))}

    for _ in range(20):
        schema = piece(3)
        got = walk(schema, seed=seed, walks=1)
        if "refusal" in got:
            assert re.match(r"response_format: (schema|expected a schema)", got["refusal"])
            assert len(got["refusal"]) < 400
        else:
            for answer in filter(None, got["answers"]):
                check = jsonschema.Draft202012Validator(schema)
                check.validate(json.loads(answer))
