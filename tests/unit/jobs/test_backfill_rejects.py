"""`stillwatch backfill --rejects`: what an older release took for no event."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from jobs import backfill_work
from jobs.cli import app
from pipeline import stream
from pipeline.batch import Decoded, Records
from pipeline.decode import Decoder
from pipeline.events import REJECT_SCHEMA
from pipeline.io import reject_source
from pipeline.text_views import kept, taken
from tests.unit.jobs.backfilled import (
    AT_1,
    EVENTS,
    Killed,
    Land,
    assert_clean,
    counted,
    lines_of,
    rows,
    write,
)


class OlderDecoder(Decoder):
    """Takes no event of the account a3, as a release with a fault might."""

    def decode(self, records: Records) -> Decoded:
        decoded = super().decode(records)
        is_refused = np.array([name == "a3" for name in decoded.events["account_id"].to_pylist()], np.bool_)
        refused = kept(decoded.events, is_refused)
        at = np.searchsorted(records.offsets, refused["offset"].to_numpy())
        said = {
            **{name: refused[name] for name in ("topic", "partition", "offset", "kafka_time")},
            "error_type": ["fault"] * len(at), "field": [None] * len(at), "reason": ["a fault"] * len(at),
            "raw": taken(records.values, at).cast(pa.binary()),
        }  # fmt: skip
        more = pa.table(said).select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA)
        rejects = pa.concat_tables([decoded.rejects, more]).sort_by("offset")
        return Decoded(kept(decoded.events, ~is_refused), rejects)


@pytest.fixture
def with_rejects(tmp_path: Path, land: Land, monkeypatch: pytest.MonkeyPatch) -> int:
    """A lake with events that were no events to an older release, and a record that is none; how many of the first."""
    path = tmp_path / "a.ndjson"
    path.write_bytes(lines_of(EVENTS) + b"broken\n")
    with monkeypatch.context() as patch:
        patch.setattr(stream, "Decoder", OlderDecoder)
        assert counted(land(path))["rejected"] == 18
    return 17


def test_rejects_that_are_events_today_are_landed_once(
    lake: Path, land: Land, with_rejects: int, tmp_path: Path
) -> None:
    dry = CliRunner().invoke(app, ["backfill", "--lake", str(lake), "--rejects", "--dry-run"])
    assert (counted(dry)["rejects read"], counted(dry)["to be landed as events"]) == (18, with_rejects)
    assert len(rows(lake)) == len(EVENTS) - with_rejects
    result = land("--rejects")
    assert result.exit_code == 0, result.output
    assert counted(result)["landed as events"] == with_rejects
    assert counted(result)["still no events"] == 1
    whole = tmp_path / "whole"
    CliRunner().invoke(app, ["backfill", "--lake", str(whole), "--no-score", str(tmp_path / "a.ndjson")])
    assert rows(lake) == rows(whole)
    assert rows(lake, '"offset", request_id') == rows(whole, '"offset", request_id')
    assert {topic.split(":file:")[0] for (topic,) in rows(lake, "topic")} >= {"again:1"}
    assert counted(land("--rejects")) | {"rejects read": 1, "landed as events": 0} == counted(land("--rejects"))
    assert rows(lake) == rows(whole)
    assert_clean(lake)


def test_a_replay_of_rejects_that_was_killed_goes_on(
    lake: Path, land: Land, with_rejects: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step it was killed after; and what a first fix did not reach comes with the second."""

    def stop_at(step: str) -> Callable[[str], None]:
        def stop(name: str) -> None:
            if name == step:
                raise Killed

        return stop

    for step in ("staged", "committed"):
        with monkeypatch.context() as patch:
            patch.setattr(backfill_work, "Stream", functools.partial(stream.Stream, step=stop_at(step)))
            with pytest.raises(Killed):
                land("--rejects")
    assert land("--rejects").exit_code == 0
    assert len(rows(lake)) == len(EVENTS)
    assert len(set(rows(lake, "request_id"))) == len(EVENTS)
    assert_clean(lake)


def test_what_a_first_fix_did_not_reach_comes_with_the_second(
    lake: Path, land: Land, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the second reaches records before those of the first."""

    class Fixed(OlderDecoder):
        def decode(self, records: Records) -> Decoded:
            decoded = Decoder.decode(self, records)
            return Decoded(kept(decoded.events, decoded.events["offset"].to_numpy() > 60), decoded.rejects)

    path = write(tmp_path / "a.ndjson")
    with monkeypatch.context() as patch:
        patch.setattr(stream, "Decoder", OlderDecoder)
        land(path)
    with monkeypatch.context() as patch:
        patch.setattr(reject_source, "Decoder", Fixed)
        assert 0 < counted(land("--rejects"))["landed as events"] < 17
    assert land("--rejects").exit_code == 0
    assert sorted(rows(lake, "request_id")) == sorted((one["request_id"],) for one in EVENTS)
    assert_clean(lake)


def test_queries_of_the_page_answer(lake: Path, land: Land, with_rejects: int, tmp_path: Path) -> None:
    """What is there twice is listed, and so are the rejects that are still none."""
    page = (Path(__file__).parents[3] / "docs/backfill.md").read_text(encoding="utf-8")
    still_rejects, twice = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert land(write(tmp_path / "b.ndjson", EVENTS[:5])).exit_code == 0

    def answer(query: str) -> list[dict[str, str]]:
        result = CliRunner().invoke(app, ["sql", "--lake", str(lake), "--format", "csv", query])
        assert result.exit_code == 0, result.output
        return list(csv.DictReader(io.StringIO(result.stdout)))

    found = answer(twice)
    assert {row["request_id"] for row in found} == {"r0", "r1", "r2", "r4"}, "r3 is a reject of the one file"
    assert {row["times"] for row in found} == {"2"}
    assert sum(int(row["n"]) for row in answer(still_rejects)) == with_rejects + 1
    land("--rejects")
    assert sum(int(row["n"]) for row in answer(still_rejects)) == 1


def test_of_rejects_only_those_are_landed_that_are_events_of_the_range(
    lake: Path, land: Land, with_rejects: int
) -> None:
    dry = CliRunner().invoke(app, ["backfill", "--lake", str(lake), "--rejects", "--dry-run", *AT_1])
    assert (counted(dry)["to be landed as events"], counted(dry)["out of range"]) == (9, with_rejects - 9)
    result = land("--rejects", *AT_1)
    assert result.exit_code == 0, result.output
    assert (counted(result)["landed as events"], counted(result)["out of range"]) == (9, with_rejects - 9)
    assert counted(result)["still no events"] == 1
    assert counted(land("--rejects"))["landed as events"] == with_rejects - 9
    assert len(set(rows(lake, "request_id"))) == len(rows(lake)) == len(EVENTS)
    assert_clean(lake)
