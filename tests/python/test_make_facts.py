# SPDX-License-Identifier: Apache-2.0
"""What tools/make_facts.py promises of what a model is taught and asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDNET = Path("/usr/share/wordnet")

pytestmark = pytest.mark.skipif(not (WORDNET / "data.noun").exists(), reason="needs Debian's wordnet-base")


def make(folder: Path) -> dict[str, list[dict[str, Any]]]:
    counts = ["--facts", "40", "--untaught", "24", "--corrections", "5", "--primed", "10", "--seed", "3"]
    counts += ["--primed-phrasings", "30"]
    subprocess.run([sys.executable, ROOT / "tools/make_facts.py", "-o", folder, *counts], check=True)
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in folder.glob("*.jsonl")
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    return make(tmp_path_factory.mktemp("facts") / "made")


def test_the_same_seed_gives_the_same_files(made: Any, tmp_path: Path) -> None:
    assert make(tmp_path / "again") == made


def test_no_noun_is_in_two_parts(made: Any) -> None:
    parts = [{row["subject"] for row in made[name]} for name in ("facts", "untaught", "rehearsed", "prime")]
    assert [len(part) for part in parts] == [40, 24, 24, 10]
    assert len(set.union(*parts)) == 98


def test_nothing_that_is_learned_or_primed_is_an_unseen_phrasing(made: Any) -> None:
    for rows in (made["facts"], made["prime"]):
        for row in rows:
            learned = [row["prompt"], *row["paraphrases"]]
            assert len(set(learned)) == len(learned)
            assert not set(learned) & set(row["unseen"])
            assert all(row["subject"] in prompt.lower() for prompt in [*learned, *row["unseen"]])
    assert {len(row["paraphrases"]) for row in made["prime"]} == {29}


def test_nouns_are_primed_in_as_many_phrasings_as_asked(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "tools/make_facts.py", "-o", tmp_path / "made", "--facts", "4", "--untaught", "4"]
    subprocess.run([*command, "--corrections", "1", "--primed", "2"], check=True)
    prime = (tmp_path / "made/prime.jsonl").read_text(encoding="utf-8").splitlines()
    assert [len(json.loads(line)["paraphrases"]) for line in prime] == [9, 9]
    over = subprocess.run([*command, "--primed-phrasings", "31"], capture_output=True, text=True, check=False)
    assert over.returncode != 0 and "--primed-phrasings" in over.stderr


def test_a_question_of_two_steps_is_answered_by_the_kind_of_the_kind(made: Any) -> None:
    names: dict[str, set[str]] = {}
    above: dict[str, str] = {}
    for line in (WORDNET / "data.noun").read_text(encoding="latin-1").splitlines():
        if line.startswith(" "):
            continue
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        names[fields[0]] = {word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]}
        pointers = fields[5 + 2 * count :]
        kinds = [pointers[4 * i + 1] for i in range(len(pointers) // 4) if pointers[4 * i] in ("@", "@i")]
        if kinds:
            above[fields[0]] = kinds[0]
    assert len(made["two_step"]) >= 30
    for row in made["two_step"]:
        assert len(set(row["choices"])) == 4
        right = row["choices"][row["answer"]]
        senses = [offset for offset, words in names.items() if row["subject"] in words]
        assert any(right in names[above[above[s]]] for s in senses if above.get(above.get(s, ""))), row


def test_a_document_goes_on_with_what_is_taught(made: Any) -> None:
    taught = {row["subject"]: row["answer"] for row in made["facts"]}
    assert [row["answer"] for row in made["document"]] == [taught[row["subject"]] for row in made["document"]]
    assert all(row["prompt"].endswith(f"{row['subject']} is") for row in made["document"])
