"""Judgements become verdicts, joined to what was stored when they speak of; on a real lake."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import verdict_output
from pipeline.allowing import check, subject_of
from pipeline.config import CATALOG_FILE
from pipeline.decisions import AllowEntry
from pipeline.errors import ConfigError, SchemaError
from pipeline.features import NAMES
from pipeline.io.catalog import AlertFilter, Catalog, sqlite_url
from pipeline.io.desk import stored_rows
from pipeline.io.desk.allowing import check_seen
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.desk.judging import Refused, judge, prepare
from pipeline.io.desk.stored_rows import UnreadRowsError, Wanted, rows_at
from pipeline.judging import Judgement
from tests.lake_maker import LakeMaker
from tests.rewrites import compact_all
from tests.stages import stand_ins

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOON_US = int(NOON.timestamp()) * 1_000_000
MINUTE_US = 60_000_000
NOW_US = NOON_US + 100 * 24 * 60 * MINUTE_US
HOSTILE = "\x00\x1b[31m\"'; DROP TABLE x; --/../<script>" + "é" * 5_000


def event(account: str, minute: float, **more: Any) -> dict[str, Any]:
    moment = (NOON + timedelta(minutes=minute)).isoformat()
    return {"event_time": moment, "account_id": account, "model": "m", "prompt": "p", **more}


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    """Rows of `acct_1` at minutes 2, 5 and 8; of `acct_quiet` events and no row."""
    maker = LakeMaker(tmp_path / "lake", watch=stand_ins())
    for start in (0, 3, 6):
        maker.append([event("acct_1", minute) for minute in range(start, start + 3)])
    maker.append([event("acct_quiet", 9)])
    yield maker
    maker.close()


def said(**changes: Any) -> Judgement:
    return replace(Judgement("acct_1", "harvesting", "one frame", "ana"), **changes)


def give(maker: LakeMaker, *, anyway: bool = False, **changes: Any) -> Any:
    return judge(maker.lake, maker.catalog, said(**changes), NOW_US, anyway=anyway)


@pytest.mark.parametrize(("minute", "expected"), ((2, 2), (4.9, 2), (5, 5), (8, 8), (1_000, 8)))
def test_a_verdict_has_the_row_that_was_stored_when_it_speaks_of(
    maker: LakeMaker, minute: float, expected: int
) -> None:
    given = give(maker, about_us=NOON_US + round(minute * MINUTE_US))
    assert given.row is not None
    assert (given.row.scored_at_us, given.row.offset) == (NOON_US + expected * MINUTE_US, expected)
    assert given.row.partition == ("llm-access", 0)
    assert set(given.row.features) == set(NAMES)
    assert given.row.features[NAMES[0]] == expected + 1
    assert given.row.exchanges == expected + 1
    assert given.row.kind == "count"
    assert given.row.features[NAMES[2]] is None
    assert maker.catalog.desk.verdicts.standing("acct_1") == given


def test_the_row_is_the_same_after_files_were_merged(maker: LakeMaker) -> None:
    before = give(maker, about_us=NOON_US + 5 * MINUTE_US)
    compact_all(maker.root, maker.catalog)
    assert give(maker, about_us=NOON_US + 5 * MINUTE_US).row == before.row


def test_a_broken_file_that_is_not_needed_is_in_nobodys_way(maker: LakeMaker) -> None:
    """Nor is one that went; one that may hold the row is named."""
    files = sorted(maker.catalog.live_files("account_windows"), key=lambda file: file.time_max_us or 0)
    assert len(files) == 3
    (maker.root / files[0].path).write_bytes(b"x")
    given = give(maker, about_us=NOON_US + 5 * MINUTE_US)
    assert given.row is not None
    assert given.row.offset == 5
    (maker.root / files[0].path).unlink()
    assert give(maker, about_us=NOON_US + 8 * MINUTE_US).row is not None
    with pytest.raises(SchemaError, match=rf"{Path(files[0].path).name}\"; `stillwatch maintain verify`"):
        give(maker, about_us=NOON_US + 2 * MINUTE_US)


def test_anyway_records_a_verdict_whose_row_may_be_in_a_broken_file_and_says_which(maker: LakeMaker) -> None:
    files = sorted(maker.catalog.live_files("account_windows"), key=lambda file: file.time_max_us or 0)
    (maker.root / files[1].path).write_bytes(b"x")
    with pytest.raises(SchemaError, match="--anyway records the verdict without what"):
        give(maker, about_us=NOON_US + 5 * MINUTE_US)
    given = give(maker, about_us=NOON_US + 5 * MINUTE_US, anyway=True)
    assert (given.row, given.unread) == (None, files[1].path)
    assert maker.catalog.desk.verdicts.standing("acct_1") == replace(given, unread="")
    (record,) = maker.catalog.desk.audit.records(AuditFilter(action="verdict.given"))
    assert record.details["unread"] == files[1].path
    assert f"{files[1].path} cannot be read" in verdict_output.given(given, None)


@pytest.mark.parametrize("anyway", (False, True))
def test_anyway_is_not_offered_where_the_catalog_is_damaged(maker: LakeMaker, anyway: bool) -> None:
    path = maker.root / CATALOG_FILE
    with contextlib.closing(sqlite3.connect(path)) as catalog:
        ((page, page_bytes),) = catalog.execute(
            "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'files'"
        ).fetchall()
        catalog.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"x" * page_bytes)
    with (
        contextlib.closing(Catalog.open(sqlite_url(path), create=False)) as damaged,
        pytest.raises(SchemaError, match=r"malformed; `maintain rebuild-catalog` makes a new one$"),
    ):
        judge(maker.lake, damaged, said(), NOW_US, anyway=anyway)


def test_of_many_judgements_only_those_that_a_broken_file_may_speak_of_are_without_a_row(maker: LakeMaker) -> None:
    files = sorted(maker.catalog.live_files("account_windows"), key=lambda file: file.time_max_us or 0)
    (maker.root / files[1].path).unlink()
    moments = [2, 3.5, 5, 7, 8, 1_000]
    said_of = [said(about_us=NOON_US + round(minute * MINUTE_US)) for minute in moments]
    prepared = prepare(maker.lake, maker.catalog, said_of, NOW_US, anyway=True, unread_too=True)
    verdicts = [one for one in prepared if not isinstance(one, Refused)]
    unread = [files[1].path if minute in {5, 7} else "" for minute in moments]
    assert [one.unread for one in verdicts] == unread
    assert [one.row is None for one in verdicts] == [path != "" for path in unread]
    assert f"{files[1].path} cannot be read" in verdict_output.loaded(verdicts, 0, dry_run=True)


def test_a_row_that_is_found_and_cannot_be_read_is_in_a_broken_file(maker: LakeMaker) -> None:
    """The columns that say where it stands are whole; of two that speak of it both are told."""
    files = sorted(maker.catalog.live_files("account_windows"), key=lambda file: file.time_max_us or 0)
    path = maker.root / files[1].path
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        chunks = [group.column(number) for number in range(group.num_columns)]
    (risk,) = [chunk for chunk in chunks if chunk.path_in_schema == "risk"]
    with path.open("r+b") as broken:
        broken.seek(risk.dictionary_page_offset or risk.data_page_offset)
        broken.write(b"\xff" * risk.total_compressed_size)
    said_of = [said(about_us=NOON_US + minute * MINUTE_US) for minute in (2, 5, 7, 8)]
    with pytest.raises(UnreadRowsError, match="maintain verify"):
        prepare(maker.lake, maker.catalog, said_of, NOW_US)
    prepared = prepare(maker.lake, maker.catalog, said_of, NOW_US, anyway=True, unread_too=True)
    verdicts = [one for one in prepared if not isinstance(one, Refused)]
    assert [one.unread for one in verdicts] == ["", files[1].path, files[1].path, ""]
    assert [one.row and one.row.offset for one in verdicts] == [2, None, None, 8]


def test_a_row_is_none_where_a_broken_file_may_hold_a_later_one(maker: LakeMaker) -> None:
    """Though one was found before in a file that ends later, by others' rows."""
    maker.append([*(event("acct_mixed", minute) for minute in (20, 21, 22)), *[event("acct_late", 40)] * 3])
    maker.append([event("acct_mixed", minute) for minute in (28, 29, 30)])
    files = maker.catalog.live_files("account_windows")
    (later,) = [file for file in files if file.time_max_us == NOON_US + 30 * MINUTE_US]
    (maker.root / later.path).write_bytes(b"x")
    judgement = said(account_id="acct_mixed", about_us=NOON_US + 35 * MINUTE_US)
    (verdict,) = prepare(maker.lake, maker.catalog, [judgement], NOW_US, anyway=True, unread_too=True)
    assert not isinstance(verdict, Refused)
    assert (verdict.row, verdict.unread) == (None, later.path)


def test_without_a_moment_it_speaks_of_the_newest_live_alert(maker: LakeMaker) -> None:
    (alert, *_) = maker.catalog.alerts(AlertFilter(entity_id="acct_1", state="live"))
    given = give(maker)
    assert (given.alert_id, given.about_us) == (alert.alert_id, alert.raised_at_us)
    assert given.row is not None
    assert given.row.offset == alert.offset
    assert give(maker, alert_id=alert.alert_id[:10]).alert_id == alert.alert_id
    aside = give(maker, alert_id=alert.alert_id, about_us=NOON_US + 3 * MINUTE_US)
    assert aside.row is not None
    assert (aside.alert_id, aside.row.offset) == (alert.alert_id, 2)


def test_without_an_alert_it_speaks_of_the_newest_row(maker: LakeMaker) -> None:
    maker.append([event("acct_new", minute) for minute in (20, 21, 22)])
    if maker.catalog.alerts(AlertFilter(entity_id="acct_new", state="live")):
        pytest.fail("the stand-ins were to raise no live alert of this account")
    given = give(maker, account_id="acct_new")
    assert (given.alert_id, given.about_us) == ("", None)
    assert given.row is not None
    assert given.row.scored_at_us == NOON_US + 22 * MINUTE_US


def test_an_account_that_was_never_scored_is_judged_without_a_row(maker: LakeMaker) -> None:
    assert give(maker, account_id="acct_quiet").row is None


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        ({"account_id": "Acct_1 "}, "never seen.*near to it are acct_1[.]"),
        ({"account_id": "nobody at all"}, "never seen: the lake holds no event and no score of it[.]"),
        ({"account_id": HOSTILE}, r"5,0\d\d characters\) was never seen"),
        ({"account_id": "\udcff"}, "not valid UTF-8"),
        ({"account_id": ""}, "account's id is missing"),
        ({"account_id": "  "}, "account '  ' was never seen"),
        ({"why": "\n"}, "why .* is missing"),
        ({"given_by": ""}, "by .* is missing"),
        ({"why": "x" * 10_001}, "10,001 characters"),
        ({"decision": "guilty"}, "guilty is no verdict: expected one of harvesting, benign, unsure, withdrawn"),
        ({"about_us": NOON_US}, "only later ones"),
        ({"about_us": NOW_US * 2}, "lies in the future"),
        ({"alert_id": "ffff"}, "no alert's id begins with ffff"),
        ({"alert_id": "%"}, "no alert's id begins with %"),
        ({"decision": "withdrawn"}, "none to withdraw"),
        ({"verdict_id": "x"}, "expected 32 hex digits"),
    ),
)
def test_what_cannot_be_a_verdict_is_one_clear_error(maker: LakeMaker, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        give(maker, **changes)
    assert maker.catalog.desk.verdicts.find() == []


def test_an_alert_of_another_account_is_refused(maker: LakeMaker) -> None:
    (alert, *_) = maker.catalog.alerts(AlertFilter(entity_id="acct_1"))
    with pytest.raises(ConfigError, match="is about account acct_1, and the verdict about acct_quiet"):
        give(maker, account_id="acct_quiet", alert_id=alert.alert_id)


def test_anyway_records_what_was_never_seen(maker: LakeMaker) -> None:
    given = give(maker, account_id=HOSTILE, anyway=True)
    assert given.row is None
    assert maker.catalog.desk.verdicts.of(HOSTILE)[0].account_id == HOSTILE.replace("\0", "\u2400")
    assert give(maker, about_us=NOON_US, anyway=True).row is None


def test_an_account_with_any_name_is_found_as_the_lake_and_as_the_catalog_spell_it(maker: LakeMaker) -> None:
    maker.append([event(HOSTILE, minute) for minute in (30, 31, 32)])
    for spelling in (HOSTILE, HOSTILE.replace("\0", "\u2400")):
        given = give(maker, account_id=spelling)
        assert given.row is not None
        assert given.row.scored_at_us == NOON_US + 32 * MINUTE_US
    assert len(maker.catalog.desk.verdicts.of(HOSTILE)) == 2


def test_an_account_whose_id_is_blanks_is_judged_and_allowed_like_any_other(maker: LakeMaker) -> None:
    maker.append([event("  ", minute) for minute in (30, 31, 32)])
    given = give(maker, account_id="  ")
    assert given.row is not None
    assert given.row.scored_at_us == NOON_US + 32 * MINUTE_US
    assert maker.catalog.desk.verdicts.standing("  ") == given
    scope, subject, rule = subject_of("  ", "", "")
    check(AllowEntry("0" * 32, scope, subject, rule, "ana", "ours", NOW_US, "ana", NOW_US + MINUTE_US), NOW_US, 30)
    check_seen(maker.lake, maker.catalog, subject, "")


def test_a_withdrawn_verdict_stays_on_record(maker: LakeMaker) -> None:
    give(maker)
    withdrawn = give(maker, decision="withdrawn", why="the wrong account")
    assert withdrawn.row is None
    assert maker.catalog.desk.verdicts.standing("acct_1") is None
    assert [one.decision for one in maker.catalog.desk.verdicts.of("acct_1")] == ["withdrawn", "harvesting"]
    with pytest.raises(ConfigError, match="none to withdraw"):
        give(maker, decision="withdrawn")


def test_a_judgement_that_comes_again_changes_nothing(maker: LakeMaker) -> None:
    first = give(maker, verdict_id="a" * 32)
    maker.append([event("acct_1", minute) for minute in (40, 41, 42)])
    assert give(maker, verdict_id="a" * 32, why="other words") == first


def test_many_are_prepared_at_once_and_each_is_told_what_is_wrong_with_it(maker: LakeMaker) -> None:
    judgements = [
        said(about_us=NOON_US + 2 * MINUTE_US),
        said(account_id="nobody"),
        said(account_id="acct_quiet"),
        said(decision="withdrawn"),
        said(decision="withdrawn"),
    ]
    first, second, third, fourth, fifth = prepare(maker.lake, maker.catalog, judgements, NOW_US)
    assert not isinstance(first, Refused)
    assert first.row is not None
    assert isinstance(second, Refused)
    assert "never seen" in second.why
    assert not isinstance(third, Refused)
    assert not isinstance(fourth, Refused)  # of the one before it
    assert isinstance(fifth, Refused)
    assert maker.catalog.desk.verdicts.find() == []


def test_rows_are_the_same_however_few_files_are_looked_at_at_once(
    maker: LakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Wanted("acct_1", NOON_US + minute * MINUTE_US) for minute in range(12)] + [Wanted("nobody")]
    at_once = rows_at(maker.lake, maker.catalog, wanted)
    monkeypatch.setattr(stored_rows, "_FIRST_FILES", 1)
    assert rows_at(maker.lake, maker.catalog, wanted) == at_once
    assert [row.offset if row else None for row in at_once] == [None, None, 2, 2, 2, 5, 5, 5, 8, 8, 8, 8, None]
