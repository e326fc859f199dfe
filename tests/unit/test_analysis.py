"""The analysis: the same of the same events however they are cut, and through any snapshot that fits."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import analysis as module
from pipeline import snapshots
from pipeline.analysis import Analysis
from pipeline.batch import Partition
from pipeline.decode import Decoder
from pipeline.errors import SchemaError
from pipeline.snapshots import Label, label_of, pack, unpack
from tests.fakes import records_of
from tests.simulation.worlds import event
from tests.stages import stand_ins

P0 = Partition("access", 0)
WATCH = stand_ins()
COUNT = 120


def events(count: int = COUNT) -> pa.Table:
    records = {offset: (event(P0, offset, random.Random(offset)), -1) for offset in range(count)}
    return Decoder().decode(records_of(P0, records, count)).events


EVENTS = events()
WHOLE = Analysis(P0, WATCH).step(EVENTS)


@pytest.fixture
def blob() -> bytes:
    analysis = Analysis(P0, WATCH)
    analysis.step(EVENTS.slice(0, 50))
    return analysis.snapshot()


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, COUNT), max_size=8), st.sets(st.integers(0, 9), max_size=9))
def test_neither_cuts_nor_snapshots_are_seen(cuts: set[int], restored: set[int]) -> None:
    analysis, windows, alerts = Analysis(P0, WATCH), [], []
    for number, (start, stop) in enumerate(itertools.pairwise([0, *sorted(cuts), COUNT])):
        if number in restored:
            analysis = Analysis.restore(P0, WATCH, analysis.snapshot(), analysis.next_offset)
        analysed = analysis.step(EVENTS.slice(start, stop - start))
        windows.append(analysed.windows)
        alerts += analysed.alerts
    assert pa.concat_tables(windows).combine_chunks().equals(WHOLE.windows)
    assert tuple(alerts) == WHOLE.alerts
    assert WHOLE.alerts


def test_a_snapshot_is_the_same_however_it_came_about(blob: bytes) -> None:
    analysis = Analysis(P0, WATCH)
    for start in range(0, 50, 7):
        analysis.step(EVENTS.slice(start, min(7, 50 - start)))
    assert analysis.snapshot() == blob
    assert Analysis.restore(P0, WATCH, blob, 50).snapshot() == blob


def test_events_that_come_again_are_a_bug(blob: bytes) -> None:
    analysis = Analysis.restore(P0, WATCH, blob, 50)
    with pytest.raises(SchemaError, match="events from 49 came after 49"):
        analysis.step(EVENTS.slice(49))


def refused(blob: bytes, **changed: Any) -> str:
    given = {"partition": P0, "watch": WATCH, "next_offset": 50, **changed}
    with pytest.raises(SchemaError) as caught:
        Analysis.restore(given["partition"], given["watch"], blob, given["next_offset"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_any_flipped_bit_is_refused(blob: bytes) -> None:
    for at in [*range(120), *random.Random(0).sample(range(len(blob)), 300)]:
        damaged = bytearray(blob)
        damaged[at] ^= 1 << at % 8
        refused(bytes(damaged))


def test_a_cut_or_lengthened_snapshot_is_refused(blob: bytes) -> None:
    for length in (*range(60), *range(60, len(blob), 97), len(blob) - 1):
        assert "cut short" in refused(blob[:length]) or length < 44
    assert "checksum" in refused(blob + b"\0")


def test_what_does_not_fit_is_refused_and_named(blob: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "of partition access-0, this job is of partition access-1" in refused(blob, partition=Partition("access", 1))
    assert "of offset 50, this job is of offset 51" in refused(blob, next_offset=51)
    assert "of models stand-in 1, this job is of models other" in refused(blob, watch=stand_ins("other"))
    monkeypatch.setattr(module, "FEATURES_HASH", "fa11")
    assert "this job is of features fa11" in refused(blob)
    monkeypatch.undo()
    libraries = {**label_of(blob).libraries, "river": "9.9"}
    other = pack(dataclasses.replace(label_of(blob), libraries=libraries), {})
    assert "of river 9.9" in refused(other)


def test_another_format_is_refused_and_no_snapshot_too(blob: bytes) -> None:
    assert "format version 1, this Stillwatch knows version 2" in refused(blob[:8] + b"\1" + blob[9:])
    assert "no snapshot" in refused(b"PAR1" + blob[4:])


@pytest.mark.parametrize("name", ("campaigns.all", "states", "states.more", "alerting.more", ""))
def test_parts_that_nobody_knows_are_refused(blob: bytes, name: str) -> None:
    label = label_of(blob)
    parts = {**unpack(blob, label), name: 1}
    refused(pack(label, parts))


def test_parts_that_are_missing_are_refused(blob: bytes) -> None:
    label = label_of(blob)
    for name in unpack(blob, label):
        refused(pack(label, {other: part for other, part in unpack(blob, label).items() if other != name}))


def test_a_part_that_cannot_be_read_is_refused_though_the_checksum_holds(blob: bytes) -> None:
    label = label_of(blob)
    body = pack(label, {"states.accounts": b"no Arrow"}).replace(b'"bytes"', b'"arrow"')
    accounts = pack(label, unpack(blob, label)).replace(b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f")
    for wrong in (body, body.replace(b'"arrow"', b'"pickl"'), body.replace(b'"parts"', b'"party"'), accounts):
        rest = wrong[snapshots._START.size :]
        start = snapshots._START.pack(b"STILLSNP", snapshots.FORMAT, hashlib.sha256(rest).digest())
        refused(start + rest)


def test_parts_come_back_as_they_were() -> None:
    label = Label(P0, 2**62, "f", "m")
    parts = {
        "table": pa.table({"a": [1, None], "b": [["x"], []]}),
        "empty": pa.table({"a": pa.array([], pa.float32())}),
        "bytes": b"\0\1" * 50,
        "json": {"nan": None, "float": 0.1 + 0.2, "big": 2**80, "list": [1, "é"]},
        "text": "",
    }
    found = unpack(pack(label, {**parts, "batches": parts["table"].to_reader(max_chunksize=1)}), label)
    assert found.pop("batches").read_all().equals(parts["table"])
    assert list(found) == list(parts)
    assert all(
        found[name].equals(part) if isinstance(part, pa.Table) else found[name] == part for name, part in parts.items()
    )
