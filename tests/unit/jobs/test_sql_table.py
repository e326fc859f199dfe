"""Tables of `stillwatch sql` that are larger than memory may be."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pytest

from jobs.sql_output import MEASURED_ROWS, write_table
from pipeline.io.views.session import Result

BATCHES = 5


def answer(out: io.BytesIO, written: list[int], last: str = "x") -> Result:
    """Batches that decide the widths each; notes how many lines stand in `out` when each is asked for."""
    batch = pa.record_batch({"n": range(MEASURED_ROWS), "text": ["abc"] * (MEASURED_ROWS - 1) + [last]})

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(BATCHES):
            written.append(out.getvalue().count(b"\n"))
            yield batch

    return Result(batch.schema.names, ["BIGINT", "VARCHAR"], batch.schema, batches())


@pytest.mark.parametrize(("width", "lines_per_row", "heading"), ((None, 1, 2), (80, 1, 2), (9, 3, 0)))
@pytest.mark.parametrize("rows_max", (None, 10**9))
def test_rows_are_written_before_the_next_are_read(
    width: int | None, rows_max: int | None, lines_per_row: int, heading: int
) -> None:
    out, written = io.BytesIO(), list[int]()
    write_table(answer(out, written), out, rows_max=rows_max, width=width)
    per_batch = MEASURED_ROWS * lines_per_row
    assert written == [0, *(heading + number * per_batch for number in range(1, BATCHES))]
    lines = out.getvalue().decode().splitlines()
    assert len(lines) == heading + BATCHES * per_batch + 1
    assert lines[-1] == "(5,000 rows)"


def test_a_later_wide_value_is_cut_at_a_terminal_and_whole_elsewhere() -> None:
    wide = pa.record_batch({"n": [123456], "text": ["a wide one"]})
    for width, expected in ((None, "123456 | a wide one"), (80, "12… | a w…")):
        out = io.BytesIO()
        first = answer(out, [], "abc")
        result = Result(first.names, first.types, first.schema, iter([*first.batches, wide]))
        write_table(result, out, rows_max=None, width=width)
        assert out.getvalue().decode().splitlines()[2::1000][:2] == ["  0 | abc", "  0 | abc"]
        assert out.getvalue().decode().splitlines()[-2] == expected
