"""Walking side by side, from wherever, gives what a single walk gives or says nothing."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.io import record_walk
from pipeline.io.record_walk import PADDING, IrregularBatchError, record_positions
from tests.unit.io.kafka_log import Headers, Row, encode_records

HEADER: Headers = [("trace", b"00-4bf92f35")]
JSON_VALUES = st.integers(0, 900).map(lambda size: b'{"prompt":"' + b"x" * size + b'"}')
VALUES = st.one_of(
    JSON_VALUES,
    st.sampled_from((None, b"", b"}\0}\0}\0}", b"}\0" * 50, b"\0" * 40, b"z" * 8190, b"z" * 9000)),
    st.binary(max_size=60),
)
USUAL_ROWS = st.builds(Row, value=JSON_VALUES)
ROWS = st.builds(Row, value=VALUES, key=st.none() | st.binary(max_size=9), headers=st.sampled_from(([], HEADER)))


@st.composite
def batches(draw: st.DrawFn) -> tuple[bytes, list[int], list[int]]:
    """A buffer, the end of each batch, and its number of records: few different records, but many of them."""
    rows = draw(st.sampled_from((USUAL_ROWS, ROWS)))
    encoded = [encode_records([row]) for row in draw(st.lists(rows, min_size=1, max_size=12))]
    counts = draw(st.lists(st.sampled_from((0, 1, 3, 30, 100, 1000)), min_size=1, max_size=5))
    order = np.random.default_rng(draw(st.integers(0, 2**32)))
    payloads = [b"".join(encoded[number] for number in order.integers(len(encoded), size=count)) for count in counts]
    return b"".join([*payloads, PADDING]), list(accumulate(map(len, payloads))), counts


def single_walk(buffer: bytes, ends: list[int], counts: list[int]) -> list[int] | None:
    try:
        return record_walk._walk(buffer, ends, counts)
    except IrregularBatchError:
        return None


def walks(buffer: bytes, ends: list[int], counts: list[int]) -> list[list[int] | None]:
    """What the ways to walk find: many walks side by side, and compiled code where it is installed."""
    found: list[list[int] | None] = []
    for way in (record_walk.walked_in_passes, record_positions):
        try:
            found.append(list(way(buffer, ends, counts).tolist()))
        except IrregularBatchError:
            found.append(None)
    return found


@settings(deadline=None, max_examples=150)
@given(batches=batches())
def test_every_record_is_found(batches: tuple[bytes, list[int], list[int]]) -> None:
    expected = single_walk(*batches)
    assert expected is not None
    assert walks(*batches) == [expected] * 2


@settings(deadline=None, max_examples=150)
@given(
    batches=batches(),
    places=st.lists(st.floats(0, 1), max_size=30),
    at_starts=st.booleans(),
    steps_max=st.integers(0, 60),
)
def test_no_cut_leads_astray(
    batches: tuple[bytes, list[int], list[int]], places: list[float], at_starts: bool, steps_max: int
) -> None:
    """Cuts where no record begins are passed over."""
    buffer, ends, _ = batches
    expected = single_walk(*batches)
    assert expected is not None
    targets = [*expected, ends[-1]] if at_starts else list(range(ends[-1] + 1))
    guesses = [targets[int(place * (len(targets) - 1))] for place in places]
    cuts = sorted({0, *guesses, ends[-1]}) if ends[-1] else [0, 0]
    found = record_walk._walk_side_by_side(buffer, cuts, steps_max)
    assert found is not None
    assert found.tolist() == expected


@settings(deadline=None, max_examples=200)
@given(
    batches=batches(),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=3),
    miscount=st.sampled_from((0, 0, 1, -1)),
)
def test_corrupt_bytes_have_the_outcome_of_a_single_walk(
    batches: tuple[bytes, list[int], list[int]], edits: list[tuple[float, int]], miscount: int
) -> None:
    buffer, ends, counts = batches
    corrupt = bytearray(buffer)
    for place, byte in edits:
        corrupt[int(place * (len(corrupt) - 1))] = byte
    counts[0] = max(counts[0] + miscount, 0)
    expected = single_walk(bytes(corrupt), ends, counts)
    assert walks(bytes(corrupt), ends, counts) == [expected] * 2


LONG_AND_SHORT = [400, 500, 9_000, 600, 300, 20_000, 450]


@pytest.mark.parametrize("sizes", ([400, 500, 600], LONG_AND_SHORT))
@pytest.mark.parametrize("counts", ([6000], [0, 3000, 3000], [30] * 200))
def test_usual_batches_are_walked_side_by_side(
    counts: list[int], sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def walk_alone(*_: object) -> list[int]:
        raise AssertionError("walked one by one")

    monkeypatch.setattr(record_walk, "_walk", walk_alone)
    records = [encode_records([Row(b'{"text":"' + b"y" * size + b'"}')]) for size in sizes]
    order = np.random.default_rng(1).choice(len(sizes), max(counts), p=np.array(sizes[::-1]) / sum(sizes)).tolist()
    payloads = [b"".join(records[number] for number in order[:count]) for count in counts]
    buffer = b"".join([*payloads, PADDING])
    positions = record_walk.walked_in_passes(buffer, list(accumulate(map(len, payloads))), counts)
    assert len(positions) == sum(counts)
