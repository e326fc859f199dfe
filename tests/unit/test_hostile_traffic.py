"""Hostile traffic against the real stages: the job goes on, and other accounts' numbers stay what they were.

What accounts share by design is stated in docs/features.md, under *Between accounts*: features of the family `spread`,
what a null means (so the hostile events here send no setting that nobody else sends), and what models have learned
(so features are compared here, not scores).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.analysis import Analysed, Analysis, Watch
from pipeline.batch import Partition
from pipeline.config import Settings
from pipeline.features import FAMILIES, FEATURES, engine
from pipeline.features.engine import AccountStates
from pipeline.text_views import reordered
from pipeline.watch import load_watch
from pipeline.windows import joined
from tests.unit.features.logs import DAY_MS, HOUR_MS, START_MS, log, nasty

P0 = Partition("t", 0)
EVENTS = 1500
MINUTE_MS = HOUR_MS // 60
YEAR_MS = 365 * DAY_MS
OWN = [feature.name for feature in FEATURES if feature.family not in {"spread", "release"}]
"""Features that hang on the account's own events; models are released by the time of the partition, which others vote on."""


@pytest.fixture(scope="module")
def watch() -> Watch:
    """What comes with Stillwatch."""
    return load_watch(Settings(rules="", models="", accounts=""))


@pytest.fixture(scope="module")
def traffic() -> pa.Table:
    """A day of 35 accounts in the order of time, a record a minute; numbers leave room for others after each."""
    plain = nasty(EVENTS, 30)
    for name, values in (
        ("offset", np.arange(EVENTS) * 10),
        ("event_time", (START_MS + np.arange(EVENTS) * MINUTE_MS) * 1000),
    ):
        at = plain.schema.get_field_index(name)
        field = plain.schema.field(at)
        plain = plain.set_column(at, field, pa.array(values).cast(field.type))
    return plain


@pytest.fixture(scope="module")
def alone(watch: Watch, traffic: pa.Table) -> Analysed:
    """What is said of the traffic without a hostile account."""
    return analysed(watch, traffic)


def analysed(watch: Watch, events: pa.Table, step: int = 400) -> Analysed:
    """Take events in by steps, with a restart from a snapshot in the middle."""
    analysis, windows, alerts = Analysis(P0, watch), [], []
    for start in range(0, len(events), step):
        found = analysis.step(events.slice(start, step))
        windows.append(found.windows)
        alerts += found.alerts
        if start == step:
            analysis = Analysis.restore(P0, watch, analysis.snapshot(), analysis.next_offset)
    return Analysed(joined(windows), tuple(alerts))


def times_of(traffic: pa.Table, at: Sequence[int]) -> list[int]:
    """Event times of the records at some places, milliseconds."""
    return [int(us) // 1000 for us in traffic["event_time"].cast(pa.int64()).take(pa.array(at)).to_pylist()]


def mixed_in(traffic: pa.Table, at: Sequence[int], **columns: Any) -> pa.Table:
    """The traffic with further events, one right after each record at some places, at its time unless told otherwise."""
    columns.setdefault("times_ms", times_of(traffic, at))
    columns.setdefault("account_id", "hostile")
    others = log(len(at), offset=[10 * place + 1 for place in at], **columns)
    whole = pa.concat_tables([traffic, others])
    return reordered(whole, np.argsort(whole["offset"].to_numpy(), kind="stable"))


def said_of_others(found: Analysed) -> dict[str, list[tuple[Any, ...]]]:
    """Each ordinary account's rows in order: its clock, counts and own features; not which record made a row due."""
    names = ["account_id", "scored_at", "kind", "exchanges", "output_tokens", "first_seen"]
    rows: dict[str, list[tuple[Any, ...]]] = {}
    features = found.windows["features"].combine_chunks()
    values = [features.field(name).to_pylist() for name in OWN]
    for row in zip(
        *(
            found.windows[name].cast(pa.string() if name in ("account_id", "kind") else pa.int64()).to_pylist()
            for name in names
        ),
        *values,
        strict=True,
    ):
        if not row[0].startswith("hostile"):
            rows.setdefault(row[0], []).append(row[1:])
    return rows


EVERYWHERE = range(50, EVENTS, 3)
HERE_AND_THERE = range(50, EVENTS, 40)
"""Fewer than one in two times the records that the watermark goes by: more such clocks hold it back."""

HOSTILE: dict[str, Callable[[pa.Table], pa.Table]] = {
    "an id of 10 kB": lambda traffic: mixed_in(traffic, EVERYWHERE, account_id="hostile" + "é" * 5_000),
    "ids that nobody else has": lambda traffic: mixed_in(
        traffic, EVERYWHERE, account_id=[f"hostile\0{number}" for number in EVERYWHERE]
    ),
    "a prompt of 5 MB": lambda traffic: mixed_in(
        traffic, [700, 720, 740], prompt=["ß9: " * 1_250_000, '"' * 5_000_000, "\n" * 5_000_000], message_count=1
    ),
    "out of order by hours": lambda traffic: mixed_in(
        traffic,
        HERE_AND_THERE,
        times_ms=[time - (n * 7 % 12) * HOUR_MS for n, time in enumerate(times_of(traffic, HERE_AND_THERE))],
    ),
    "one request id": lambda traffic: mixed_in(traffic, EVERYWHERE, request_id="r", prompt="again", message_count=1),
    "one event dated years ahead": lambda traffic: mixed_in(traffic, [200], times_ms=[START_MS + 30 * YEAR_MS]),
    "a clock that jumps": lambda traffic: mixed_in(
        traffic,
        HERE_AND_THERE,
        times_ms=[
            max(0, time + (n % 3 - 1) * 20 * YEAR_MS) for n, time in enumerate(times_of(traffic, HERE_AND_THERE))
        ],
    ),
    "the largest numbers": lambda traffic: mixed_in(
        traffic, EVERYWHERE, input_tokens=1 << 40, output_tokens=1 << 40, latency_ms=(1 << 53) - 1, max_tokens=1 << 40
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_others_numbers_stay_as_they_were(watch: Watch, traffic: pa.Table, alone: Analysed, what: str) -> None:
    found = analysed(watch, HOSTILE[what](traffic))
    expected = said_of_others(alone)
    assert len(expected) > 15
    assert said_of_others(found) == expected


def test_the_hostile_account_itself_is_scored(watch: Watch, traffic: pa.Table) -> None:
    """Neither a long id nor a torn clock is a way not to be seen."""
    for what in ("an id of 10 kB", "a clock that jumps", "the largest numbers"):
        windows = analysed(watch, HOSTILE[what](traffic)).windows
        own = [row for row, name in enumerate(windows["account_id"].to_pylist()) if name.startswith("hostile")]
        assert max(windows["exchanges"].take(own).to_pylist()) >= 32
        assert windows["risk"].take(own).null_count < len(own)


def test_two_hundred_thousand_accounts_of_one_event_each_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has the bound of `accounts_max`; who sends on all the while is kept, for it is never idle longest."""
    monkeypatch.setattr(engine, "CHECK_EVERY", 8_192)
    many, accounts_max = 200_000, 5_000
    states = AccountStates(FAMILIES, accounts_max=accounts_max)
    seen, most = [], 0
    for start in range(0, many, 8_000):
        names = [f"once-{number}" if number % 100 else "steady" for number in range(start, start + 8_000)]
        times = [START_MS + number * 20 for number in range(start, start + 8_000)]
        rows = states.step(log(8_000, account_id=names, times_ms=times, offset=list(range(start, start + 8_000))))
        seen += [
            count for name, count in zip(rows.account_id, rows.exchanges.tolist(), strict=True) if name == "steady"
        ]
        most = max(most, len(states))
    assert most <= accounts_max + 8_192
    assert states.dropped_for_room > many - accounts_max - 3 * 8_192
    assert max(seen) > many // 100 - 128
    assert states._accounts.columns["key"].nbytes < 8 * (accounts_max + 8_192) * 2
