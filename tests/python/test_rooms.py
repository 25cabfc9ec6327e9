# SPDX-License-Identifier: Apache-2.0
"""The table of rooms in docs/design.md is what the includes of src/ are."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = re.compile(r'^#include "(\w+)/([\w./]+)"', re.MULTILINE)


def words(cell: str) -> set[str]:
    return set(re.findall(r"\w+", cell))


def rooms() -> dict[str, tuple[set[str], set[str]]]:
    """By room: its public headers, and the rooms that it may use."""
    page = (ROOT / "docs" / "design.md").read_text()
    table = page[page.index("| room | what it is |") :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    names = {row[0] for row in rows}
    return {row[0]: (words(row[2]), names if row[3] == "all" else words(row[3])) for row in rows}


def sources() -> list[Path]:
    return [p for p in (ROOT / "src").rglob("*") if p.suffix in {".cpp", ".h", ".inl", ".cu"}]


def test_every_folder_is_a_room():
    assert {p.name for p in (ROOT / "src").iterdir() if p.is_dir()} == set(rooms())


def test_every_public_header_has_one_room():
    headers = sorted(p.stem for p in (ROOT / "include" / "memlayers").glob("*.h"))
    listed = sorted(header for own, _ in rooms().values() for header in own)
    assert listed == [h for h in headers if h != "memlayers"]  # which includes them all


def test_a_room_includes_only_what_its_row_names():
    table = rooms()
    room_of = {header: room for room, (own, _) in table.items() for header in own}
    wrong = []
    for path in sources():
        room = path.relative_to(ROOT / "src").parts[0]
        for folder, name in INCLUDE.findall(path.read_text()):
            used = room_of.get(name.removesuffix(".h"), name) if folder == "memlayers" else folder
            if used != room and used not in table[room][1]:
                wrong.append(f"{path.relative_to(ROOT)} includes {folder}/{name}")
    assert wrong == []
