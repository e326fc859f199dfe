"""Counts in words say one and several as people do, and in one way everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.counted import counted

ROOT = Path(__file__).parents[2]
_THINGS = (
    "rows|files|records|accounts|alerts|requests|exchanges|commits|verdicts|snapshots|rejects|events|bytes|hours|times"
)
OWN_WAYS = (
    r"""['"]s['"] if .{1,40} [!=]= 1|['"]['"] if .{1,40} == 1 else ['"]s['"]""",  # an s by hand
    # a number and several of something: no constant, no fraction, no rate, and not what `counted` itself gives
    rf"\{{(?!_?[A-Z0-9]|counted\()[^{{}}]*(?<!\.\df)(?<!:g)\}} (?:{_THINGS})\b(?!/s)",
    r"""(?:[=(\[,:]|return|yield|else)\s*f(['"])\{counted\([^{}]*\)\}\1(?!\s*f?['"])""",  # an f-string of nothing else
    r"\| whole \}\} (?:rows|files|records|alerts|events|requests|exchanges|verdicts|scores|tokens|digests)\b",
)


@pytest.mark.parametrize(("count", "said"), ((0, "0 rows"), (1, "1 row"), (2, "2 rows"), (2_000, "2,000 rows")))
def test_one_and_several(count: int, said: str) -> None:
    assert counted(count, "row") == said


def test_what_else_changes_is_named() -> None:
    assert [counted(count, "entry is", "entries are") for count in (1, 2)] == ["1 entry is", "2 entries are"]


@pytest.mark.parametrize(
    ("text", "is_one"),
    (
        ("{size} bytes", True),
        ("{size:,} rows", True),
        ("{len(rows)} events, and", True),
        ("{_whole(log['hours'])} hours", True),
        ("{counted(size, 'is', 'are')} events", False),
        ("{_BYTES_MAX:,} bytes", False),
        ("{rate:,.0f} rows/s", False),
        ("{width:,.1f} hours", False),
        ("{hours:g} hours", False),
        ("said = f\"{counted(size, 'row')}\"", True),
        ('("all, "\n f"{counted(size, \'row\')}")', False),
        ('(f"{counted(size, \'row\')}"\n " left")', False),
        ("said = f\"{counted(size, 'row')} left\"", False),
    ),
)
def test_what_is_a_way_of_its_own(text: str, is_one: bool) -> None:
    assert any(re.search(pattern, text) for pattern in OWN_WAYS) == is_one


def test_no_message_counts_in_a_way_of_its_own() -> None:
    files = [
        path for name in ("jobs", "pipeline") for end in ("py", "html") for path in (ROOT / name).rglob(f"*.{end}")
    ]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files
        for pattern in OWN_WAYS
        for match in re.finditer(pattern, path.read_text(encoding="utf-8"))
    ]
    assert found == []
