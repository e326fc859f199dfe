"""Erasure: one account goes from everything that is kept, and nobody else loses a bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.errors import RetryableError, SchemaError
from pipeline.forgetting import without_account
from pipeline.io.catalog import AlertFilter
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.rewriting.erasure import Eraser
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.io.rewriting.naming import Named
from pipeline.io.rewriting.settling import tidy
from tests.lake_maker import LakeMaker
from tests.rewrites import (
    ERASED,
    TABLE_NAMES,
    StandingClock,
    assert_sound,
    compact_all,
    content_of,
    events_of,
    many_commits,
    payloads,
)


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    with many_commits(tmp_path / "lake", commits=4) as maker:
        maker.append(payloads(4), snapshot=True)
        maker.append(payloads(5), partition=1, snapshot=True)
        yield maker


def eraser_of(maker: LakeMaker, account: str = ERASED) -> Eraser:
    return Eraser(maker.lake, maker.catalog, RewriteLedger(maker.catalog, "tests"), StandingClock(), account)


def bytes_on_disk(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("compacted", (False, True))
def test_the_account_goes_from_all_tables_and_others_stay(maker: LakeMaker, *, compacted: bool) -> None:
    if compacted:
        compact_all(maker.root, maker.catalog)
    before = content_of(maker.root, maker.catalog_url)
    kept = {table: {text: n for text, n in rows.items() if ERASED not in text} for table, rows in before.items()}
    found = eraser_of(maker).find()
    done = eraser_of(maker).erase()
    assert done.is_proven
    assert found.rows == done.rows
    assert all(done.rows[table] for table in TABLE_NAMES)
    assert content_of(maker.root, maker.catalog_url) == kept
    assert done.alerts == found.alerts > 0
    assert maker.catalog.alerts(AlertFilter(entity_id=ERASED)) == []
    live = {alert.alert_id for alert in maker.catalog.alerts() if alert.state == "live"}
    assert maker.catalog.outbox().keys() == live
    assert (done.snapshots, done.partitions) == (2, 2)
    assert_sound(maker.root, maker.catalog)
    events_of(maker.root, maker.catalog)


def test_files_that_another_run_takes_away_meanwhile_are_no_failure(
    maker: LakeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two erasures at once: whatever this one is about to read, the other one has just rewritten and removed."""
    rows_in, left = Named.rows_in, [3]

    def after_the_other(named: Named, table: str, root: Path, paths: list[str]) -> dict[str, int]:
        if paths and left[0]:
            left[0] -= 1
            with monkeypatch.context() as patch:
                patch.setattr(Named, "rows_in", rows_in)
                compact_all(maker.root, maker.catalog)
                tidy(maker.lake, RewriteLedger(maker.catalog, "tests"), 1 << 60, 0)
                eraser_of(maker).erase()
        return rows_in(named, table, root, paths)

    monkeypatch.setattr(Named, "rows_in", after_the_other)
    assert eraser_of(maker).erase().is_proven
    assert_sound(maker.root, maker.catalog)


def test_rejects_of_other_forms_that_hold_its_id_are_counted_and_stay(maker: LakeMaker) -> None:
    """As a whole word: an id that is part of another one is not meant."""
    mine = [b"account=acct_3 at noon", b"{'account_id': 'acct_3'}", b'{"account_id": ["acct_3"]}', b"acct_3"]
    others = [b"account=acct_33", b"my-acct_3", b'{"account_id": "acct_3", "broken', b"acct_2"]
    maker.append([*mine, *others])
    rejects = eraser_of(maker).find().rows["rejects"]
    assert eraser_of(maker).find().mentions == len(mine)
    done = eraser_of(maker).erase()
    assert (done.is_proven, done.rows["rejects"], done.mentions) == (True, rejects, len(mine))


def test_its_id_is_in_no_file_of_the_lake_any_more(maker: LakeMaker) -> None:
    """Nor in the catalog's, though the record tells whoever knows the id."""
    compact_all(maker.root, maker.catalog)
    assert any(ERASED.encode() in content for content in bytes_on_disk(maker.root).values())
    done = eraser_of(maker).erase()
    maker.close()
    holding = [path for path, content in bytes_on_disk(maker.root).items() if ERASED.encode() in content]
    assert holding == []
    note, began = maker.catalog.desk.audit.records()
    assert (note.action, began.action) == ("erase", "erase.began")
    assert began.details["found"]["rows"] == done.rows
    assert ERASED not in json.dumps(asdict(began))
    assert note.audit_id == done.audit_id
    details = note.details
    assert ERASED not in json.dumps(asdict(note))
    assert hashlib.sha256(ERASED.encode()).hexdigest() not in json.dumps(asdict(note))
    assert maker.catalog.desk.audit.records(AuditFilter(subject=ERASED)) == [note, began]
    assert details["unkeyed"] == 0
    assert details["proven"]
    assert details["rows"] == done.rows


def test_snapshots_of_others_can_still_be_used(maker: LakeMaker) -> None:
    eraser_of(maker).erase()
    for partition in maker.catalog.offsets():
        (entry,) = maker.catalog.snapshots(partition)
        blob = maker.lake.read_snapshot(entry)
        assert hashlib.sha256(blob).hexdigest() == entry.sha256
        assert without_account(blob, ERASED) is None
        assert without_account(blob, "acct_4") is not None


def test_a_worker_that_remembers_it_can_commit_no_more(maker: LakeMaker) -> None:
    """Its claim is from before the erasure."""
    (partition, offset), *_ = maker.catalog.offsets().items()
    claim = maker.catalog.take(partition)
    assert claim is not None
    eraser_of(maker).erase()
    again = maker.catalog.take(partition)
    assert again is not None
    assert again.epoch > claim.epoch + 1
    assert again.next_offset == offset


def test_nothing_is_done_for_an_account_that_is_not_there(maker: LakeMaker) -> None:
    before = content_of(maker.root, maker.catalog_url)
    files = maker.catalog.live_files()
    done = eraser_of(maker, "nobody").erase()
    assert done.is_proven
    assert (done.files, done.snapshots, done.alerts, done.rows) == (0, 0, 0, {})
    assert maker.catalog.live_files() == files
    assert content_of(maker.root, maker.catalog_url) == before


def test_events_that_go_on_arriving_are_told(maker: LakeMaker) -> None:
    """As often as it looks, there are more."""

    def land(name: str) -> None:
        if name == "taken over":
            maker.append([{"event_time": "2026-03-01T12:00:00Z", "account_id": ERASED, "model": "m"}])

    ledger = RewriteLedger(maker.catalog, "tests")
    eraser = Eraser(maker.lake, maker.catalog, ledger, StandingClock(), ERASED, land)
    with pytest.raises(RetryableError, match="still arrive"):
        eraser.erase()
    assert eraser_of(maker).erase().is_proven


def test_a_file_that_cannot_be_read_is_an_error_and_not_a_proof(maker: LakeMaker) -> None:
    path = maker.catalog.live_files("access")[0].path
    (maker.root / path).write_bytes(b"no Parquet")
    with pytest.raises(SchemaError, match="verify"):
        eraser_of(maker).erase()


@pytest.mark.parametrize(
    ("raw", "is_named"),
    (
        (b'{"account_id":"caf\xc3\xa9"', True),
        (b'{"account_id" :\n "caf\\u00e9", broken', True),
        (b'{"account_id":"cafe"', False),
        (b'{"account_id":"caf\xc3\xa9 2"', False),
        (b'{"role":"caf\xc3\xa9"}', False),
        (None, False),
    ),
)
def test_a_reject_is_an_accounts_where_its_bytes_say_so(raw: bytes | None, *, is_named: bool) -> None:
    assert Named("caf\u00e9")._names(raw, "") is is_named
