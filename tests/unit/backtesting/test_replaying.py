"""The loop: what it lets through, and when it stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from pipeline.backtesting import replaying
from pipeline.backtesting.replaying import Replayed, replay
from pipeline.errors import ConfigError
from pipeline.io import event_files
from pipeline.io.event_files import read_files
from tests.unit.backtesting.standin import StandIn


def lines(count: int) -> Iterator[bytes]:
    for at in range(count):
        yield orjson.dumps(
            {
                "event_time": f"2026-03-01T{at // 60:02}:{at % 60:02}:00Z",
                "account_id": f"a{at % 3}",
                "model": "m",
                "message_count": 1 + at % 2,
                "output_tokens": 100 * (at % 5),
            }
        )


def write(folder: Path, content: list[bytes]) -> Path:
    path = folder / "events.ndjson"
    path.write_bytes(b"\n".join(content) + b"\n")
    return path


def through(path: Path, *, partitions: int = 1, rejects_max: float = 0.0) -> tuple[Replayed, pa.Table, list[str]]:
    windows: list[pa.Table] = []
    alerts: list[str] = []

    def keep(scores: pa.Table, raised: object) -> None:
        windows.append(scores)
        alerts.extend(alert.alert_id for alert in raised)  # type: ignore[attr-defined]

    done = replay(read_files([path], "t", partitions).chunks, StandIn, keep, rejects_max=rejects_max)
    return done, pa.concat_tables(windows), alerts


@pytest.mark.parametrize("partitions", (1, 3))
def test_scores_and_alerts_do_not_depend_on_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    path = write(tmp_path, list(lines(200)))
    keys = [("partition", "ascending"), ("offset", "ascending")]
    whole, windows, alerts = through(path, partitions=partitions)
    monkeypatch.setattr(event_files, "CHUNK_ROWS", 7)
    cut, windows_cut, alerts_cut = through(path, partitions=partitions)

    assert windows.sort_by(keys).equals(windows_cut.sort_by(keys))
    assert sorted(alerts) == sorted(alerts_cut)
    assert whole.activity.accounts().equals(cut.activity.accounts())
    assert (whole.records, whole.scores, whole.partitions) == (cut.records, cut.scores, cut.partitions)
    assert whole.scores == 200 - 3 * 7


def test_partitions_do_not_change_what_concerns_one_account(tmp_path: Path) -> None:
    path = write(tmp_path, list(lines(200)))
    keys = [("account_id", "ascending"), ("scored_at", "ascending")]
    one, four = (
        through(path, partitions=partitions)[1].sort_by(keys).select(["account_id", "scored_at", "risk"])
        for partitions in (1, 4)
    )
    assert one.equals(four)


def test_a_broken_share_within_the_limit_is_counted_by_reason(tmp_path: Path) -> None:
    done, windows, _ = through(write(tmp_path, [*lines(98), b"{", b'{"model":"m"}']), rejects_max=0.02)
    assert (done.records, done.rejected) == (100, 2)
    assert sum(done.rejects.values()) == 2
    assert len(done.rejects) == 2
    assert "line 99: " in done.first_reject
    assert len(windows)


def test_a_greater_share_stops_with_the_first_of_them(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"2 of the first 100 records are no events, more than --max-rejects 0\.01 allows; the first: .*line 99: ",
    ):
        through(write(tmp_path, [*lines(98), b"{", b"{"]), rejects_max=0.01)


def test_a_log_that_is_none_stops_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_files, "CHUNK_ROWS", 10)
    monkeypatch.setattr(replaying, "RECORDS_MIN", 20)
    with pytest.raises(ConfigError, match="20 of the first 20 records"):
        through(write(tmp_path, [b"no"] * 1000), rejects_max=0.5)


def test_an_empty_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "events.ndjson").touch()
    with pytest.raises(ConfigError, match="there is no event in it"):
        through(tmp_path / "events.ndjson")
