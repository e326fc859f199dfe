"""Marks, CRs and blank lines are passed over, and each line keeps its number."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from pipeline.io.ndjson import MARK, LineCount, plain, spoken

PIECES = st.lists(st.sampled_from([b"{}", b"\n", b"\r", b"\r\n", b" ", b"\t", b"x", b"\n\n\n", MARK]), max_size=40)


def lines_of(content: bytes) -> list[bytes]:
    return list(plain(line.removesuffix(b"\n") for line in io.BytesIO(content)))


def test_a_mark_crs_and_blank_lines_are_passed_over() -> None:
    lines = lines_of(MARK + b'{"a": 1}\r\n\r\n \t\n\n{"b": 2} \r\n' + MARK + b"\n{}")
    assert lines == [b'{"a": 1}', b"", b"", b"", b'{"b": 2} ', MARK, b"{}"]
    said, numbers = spoken(lines, 10)
    assert said == [b'{"a": 1}', b'{"b": 2} ', MARK, b"{}"]
    assert numbers.tolist() == [10, 14, 15, 16]


@given(pieces=PIECES, cuts=st.lists(st.integers(1, 7), min_size=1, max_size=60))
def test_counting_bytes_counts_the_lines_wherever_they_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    """But for a file of a mark alone, which has a line of nothing, or none: it is empty either way."""
    content = b"".join(pieces)
    counted, at = LineCount(), len(MARK)
    counted.add(content[:at])
    for cut in [*cuts, len(content)]:
        counted.add(content[at : at + cut])
        at += cut
    lines = lines_of(content)
    blank = sum(not line for line in lines)
    assert counted.rows == (len(lines), blank) or (content == MARK and counted.rows == (0, 0))
