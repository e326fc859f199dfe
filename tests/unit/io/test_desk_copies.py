"""The copy of the desk in the lake: a lost catalog gets back what people decided, and an erased account is not in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.batch import Partition
from pipeline.config import CATALOG_FILE
from pipeline.decisions import AllowEntry, Verdict
from pipeline.errors import LakeDamagedError
from pipeline.io.catalog import Catalog
from pipeline.io.catalog_alerts import SUPPRESSED, UNCLEAR
from pipeline.io.desk import copies, kept_aside, verdict_book
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.desk.seals import Compared
from pipeline.io.desk.topic_book import Read
from pipeline.io.rebuild import plan_of, rebuild
from pipeline.io.rewriting.erasure import Eraser
from pipeline.io.rewriting.ledger import RewriteLedger
from tests.lake_maker import LakeMaker
from tests.rewrites import StandingClock
from tests.stages import stand_ins
from tests.unit.io.test_judging import NOW_US, event, give

ODD = "o'b\"\x00\x1b/<i>" + "é" * 2_000
P0, P1 = Partition("llm-access", 0), Partition("llm-access", 1)


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[LakeMaker]:
    """A lake where one alert is suppressed, by an exception that has expired since."""
    maker = LakeMaker(tmp_path / "lake", watch=stand_ins())
    entry = AllowEntry("e" * 32, "account", "acct_1", "", "sales", "pilot", 1, "ana", NOW_US - 1)
    maker.catalog.desk.exceptions.add(entry)
    for account in ("acct_1", ODD, *(f"more_{number}" for number in range(12))):
        maker.append([event(account, minute) for minute in range(3)])
    yield maker
    maker.close()


def verdict(number: int, account: str = "acct_1") -> Verdict:
    return Verdict(f"{number:032x}", account, "benign", "w", "ana", NOW_US)


def rebuilt(maker: LakeMaker) -> Catalog:
    """Lose the catalog, and make it anew from the files."""
    maker.close()
    for name in ("", "-wal", "-shm"):
        (maker.root / f"{CATALOG_FILE}{name}").unlink(missing_ok=True)
    rebuild(maker.lake, maker.catalog_url, plan_of(maker.lake), NOW_US, "ben")
    return Catalog.open(maker.catalog_url, create=False)


def test_a_rebuilt_catalog_knows_what_was_decided_and_who_did_what(maker: LakeMaker) -> None:
    desk = maker.catalog.desk
    give(maker)
    give(maker, account_id=ODD, decision="benign")
    give(maker, decision="withdrawn")
    desk.exceptions.add(AllowEntry("f" * 32, "rule", "r", "", "o", "w", NOW_US, "ben", NOW_US + 10**12))
    desk.exceptions.end("f" * 32, "ben", NOW_US + 1)
    (mine,) = [one for one in maker.catalog.alerts() if one.entity_id == "acct_1"]
    desk.claims.claim(mine.alert_id, "ana", NOW_US)
    desk.topics.give(Partition("verdicts", 0), None, Read(7, "t"), [verdict(9)])
    states = maker.catalog.outbox()
    assert set(states.values()) == {"new", SUPPRESSED}
    copies.copy(maker.root, maker.catalog)
    before = (
        desk.verdicts.find(), desk.exceptions.find(), desk.exceptions.suppressed(), desk.topics.read("verdicts"),
        desk.claims.holders([mine.alert_id]), desk.verdicts.standing_of(["acct_1", ODD]),
    )  # fmt: skip
    records = desk.audit.records()
    with contextlib.closing(rebuilt(maker)) as catalog:
        found = catalog.desk
        assert before == (
            found.verdicts.find(), found.exceptions.find(), found.exceptions.suppressed(),
            found.topics.read("verdicts"), found.claims.holders([mine.alert_id]),
            found.verdicts.standing_of(["acct_1", ODD]),
        )  # fmt: skip
        latest, *others = found.audit.records()
        assert others == records
        assert (latest.action, latest.details["verdicts"], latest.details["audit"]) == (
            "catalog.rebuilt",
            4,
            len(records),
        )
        assert found.audit.broken_at() is None
        assert catalog.outbox() == {
            alert_id: state if state == SUPPRESSED else UNCLEAR for alert_id, state in states.items()
        }
        assert found.verdicts.give(verdict(1)).seq > before[0][0].seq + 500
        assert found.audit.records(AuditFilter(limit=1))[0].seq == latest.seq + 1


def test_what_a_killed_command_left_behind_the_next_one_copies(maker: LakeMaker) -> None:
    maker.catalog.desk.verdicts.give(verdict(1))  # and killed, before the copy
    give(maker)
    assert len(copies.read(maker.root).rows["verdicts"]) == 2
    maker.catalog.desk.verdicts.give(verdict(2))
    with contextlib.closing(rebuilt(maker)) as catalog:
        assert len(catalog.desk.verdicts.find()) == 2, "that much is lost with the catalog"


def test_a_rebuild_that_dies_can_be_done_again(maker: LakeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    give(maker)
    expected = maker.catalog.desk.verdicts.find()
    with monkeypatch.context() as patched:
        patched.setattr(Catalog, "replace_all", _die)
        with pytest.raises(KeyboardInterrupt):
            rebuilt(maker)
    rebuild(maker.lake, maker.catalog_url, plan_of(maker.lake), NOW_US)
    with contextlib.closing(Catalog.open(maker.catalog_url, create=False)) as catalog:
        assert catalog.desk.verdicts.find() == expected
        assert catalog.desk.audit.broken_at() is None
        assert [one.action for one in catalog.desk.audit.records()].count("catalog.rebuilt") == 1


def _die(*_arguments: object, **_more: object) -> None:
    raise KeyboardInterrupt


def test_files_hold_five_hundred_numbers_each_and_only_new_ones_are_written(maker: LakeMaker) -> None:
    folder = maker.root / copies.DESK
    maker.catalog.desk.verdicts.give_all([verdict(number) for number in range(1, 1_201)])
    copies.copy(maker.root, maker.catalog)
    names = sorted(path.name for path in folder.glob("verdicts-*"))
    assert names == [f"verdicts-{first:012d}.ndjson" for first in (0, 500, 1000)]
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    maker.catalog.desk.verdicts.give(verdict(2_000))
    copies.copy(maker.root, maker.catalog)
    again = {path.name for path in folder.iterdir() if written.get(path) != path.stat().st_mtime_ns}
    assert again == {"verdicts-000000001000.ndjson", "audit-000000001000.ndjson"}
    assert len(copies.read(maker.root).rows["verdicts"]) == 1_201
    (folder / "verdicts-000000001000.ndjson").unlink()
    copies.copy(maker.root, maker.catalog)
    assert len(copies.read(maker.root).rows["verdicts"]) == 1_201


def test_marks_are_copied_once_and_those_of_partitions_that_lag_behind_are_added(maker: LakeMaker) -> None:
    folder = maker.root / copies.DESK
    marked: dict[Partition, list[tuple[int, int]]] = {P0: [], P1: []}

    def learn(partition: Partition, offset: int, verdict_seq: int) -> None:
        with maker.catalog.transaction(write=True) as tx:
            verdict_book.mark(tx, partition, offset, verdict_seq)
        marked[partition].append((offset, verdict_seq))

    for number in range(1, 121):
        learn(P0, number, number)
    copies.copy(maker.root, maker.catalog, every_table=False)
    names = sorted(path.name for path in folder.glob("marks*"))
    assert names == [f"marks-{first:012d}.ndjson" for first in (0, 50, 100)]
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    learn(P0, 200, 121)
    learn(P1, 7, 30)
    copies.copy(maker.root, maker.catalog, every_table=False)
    again = {path.name for path in folder.iterdir() if written.get(path) != path.stat().st_mtime_ns}
    assert again == {names[0], names[2]}
    (folder / names[1]).unlink()
    copies.copy(maker.root, maker.catalog)
    restored = {
        partition: sorted(
            (row["offset"], row["verdict_seq"])
            for row in copies.read(maker.root).rows["marks"]
            if (row["topic"], row["partition"]) == partition
        )
        for partition in marked
    }
    assert restored == marked


def test_marks_that_an_older_version_copied_into_one_file_come_back(maker: LakeMaker) -> None:
    give(maker)
    copies.copy(maker.root, maker.catalog)
    former = maker.root / copies.DESK / "marks.ndjson"
    former.write_text('{"offset": 3, "partition": 0, "topic": "llm-access", "verdict_seq": 1}\n')
    with contextlib.closing(rebuilt(maker)) as catalog:
        assert catalog.desk.verdicts.marks(P0) == [(3, 1)]
        copies.copy(maker.root, catalog)
        assert not former.exists()
        assert [row["offset"] for row in copies.read(maker.root).rows["marks"]] == [3]


@pytest.mark.parametrize("account", ("acct_1", ODD))
def test_an_erased_account_is_in_no_file_of_the_copy(maker: LakeMaker, account: str) -> None:
    maker.catalog.desk.verdicts.give_all([verdict(number) for number in range(1, 700)])
    give(maker, account_id=account)
    entry = AllowEntry("d" * 32, "account", account, "", "o", "w", 1, "ben", NOW_US + 10**12)
    maker.catalog.desk.exceptions.add(entry)
    maker.catalog.desk.exceptions.add(replace(entry, exception_id="c" * 32, scope="organisation"))
    copies.copy(maker.root, maker.catalog)
    assert copies.lines_about(maker.root, account) > 2
    done = Eraser(maker.lake, maker.catalog, RewriteLedger(maker.catalog, "test:1"), StandingClock(), account).erase()
    assert (done.is_proven, done.left_decisions) == (True, 0)
    assert copies.lines_about(maker.root, account) == 0
    with contextlib.closing(rebuilt(maker)) as catalog:
        assert catalog.desk.verdicts.of(account) == []
        assert account not in {one.subject for one in catalog.desk.audit.records() if one.subject_type == "account"}
        about = catalog.desk.audit.records(AuditFilter(subject=account))
        assert [one.action for one in about][:2] == ["erase", "decisions.erased"], "the proof outlives the catalog"
        assert catalog.desk.audit.compared().is_sound
        assert catalog.desk.audit.broken_at() is None


def test_a_copy_that_cannot_be_read_stops_the_rebuild_and_is_named(maker: LakeMaker) -> None:
    give(maker)
    path = maker.root / copies.DESK / "verdicts-000000000000.ndjson"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(LakeDamagedError, match=r"verdicts-0{12}\.ndjson cannot be read"):
        plan_of(maker.lake)


def test_a_copy_of_the_record_without_its_key_stops_the_rebuild(maker: LakeMaker) -> None:
    give(maker)
    key = maker.root / copies.DESK / "keys.ndjson"
    kept = key.read_bytes()
    key.unlink()
    with pytest.raises(LakeDamagedError, match=r"keys\.ndjson is not there: the audit log's hashes"):
        plan_of(maker.lake)
    key.write_bytes(kept)
    with contextlib.closing(rebuilt(maker)) as catalog:
        assert catalog.desk.audit.compared().is_sound
        assert catalog.desk.audit.records(AuditFilter(subject="acct_1"))


def test_what_came_from_a_copy_without_the_record_is_said_once_and_sound(maker: LakeMaker) -> None:
    """Somebody lost the key, and does without the record: what is done from there on is watched as ever."""
    desk = maker.catalog.desk
    desk.exceptions.end("e" * 32, "ana", 2)
    desk.exceptions.add(AllowEntry("f" * 32, "rule", "r", "", "o", "w", NOW_US, "ben", NOW_US + 10**12))
    desk.verdicts.give_all([verdict(1), verdict(2, "acct_other"), verdict(3, ODD)])
    give(maker)
    for path in (maker.root / copies.DESK).iterdir():
        if path.name.startswith(("audit-", "keys")):
            path.unlink()
    for _ in range(2):  # and once more, of the copy of that
        with contextlib.closing(rebuilt(maker)) as catalog:
            assert catalog.desk.audit.compared() == Compared(adopted=6)
            assert catalog.desk.audit.subjects().is_sound
    with contextlib.closing(Catalog.open(maker.catalog_url, create=False)) as catalog:
        desk = catalog.desk
        assert [len(one.details["without_record"]) for one in desk.audit.records()] == [0, 6]
        assert {one.actor for one in desk.audit.records()} == {"ben"}
        assert desk.exceptions.end("f" * 32, "ben", NOW_US + 1)
        desk.verdicts.give(verdict(9))
        RewriteLedger(catalog, "test:1", "ana").erase_account("acct_other", NOW_US)
        assert desk.audit.records(AuditFilter(limit=1))[0].actor == "ana"
        assert desk.audit.compared() == Compared(adopted=5, sealed=1, erased=1)
        with catalog.transaction(write=True) as tx:
            tx.exec_driver_sql(f"UPDATE verdicts SET seq = 700 WHERE verdict_id = '{1:032x}'")
            tx.exec_driver_sql(f"DELETE FROM verdicts WHERE verdict_id = '{3:032x}'")
            tx.exec_driver_sql(f"UPDATE exceptions SET ended_by = 'x' WHERE exception_id = '{'f' * 32}'")
        found = desk.audit.compared()
        assert sorted(found.changed) == [f"exception {'f' * 32}", f"verdict {1:032x}"]
        assert found.removed == [f"verdict {3:032x}"]


def aside(maker: LakeMaker) -> dict[str, list[dict[str, object]]]:
    """Lines that are kept aside, by the table's name."""
    found: dict[str, list[dict[str, object]]] = {}
    for path in sorted((maker.root / copies.DESK / kept_aside.ASIDE).glob("*")):
        lines = path.read_text().splitlines()
        found.setdefault(path.name.split("-")[0].split(".")[0], []).extend(map(json.loads, lines))
    return found


def test_what_the_copy_would_lose_without_an_erasure_is_kept_aside(maker: LakeMaker) -> None:
    """It is the one witness of what somebody removed from the catalog."""
    desk = maker.catalog.desk
    desk.verdicts.give_all([verdict(1), verdict(2), verdict(3, ODD), verdict(4, "acct_other")])
    for number, letter in enumerate("cd"):
        desk.exceptions.add(AllowEntry(letter * 32, "account", f"x{number}", "", "o", "w", NOW_US, "b", NOW_US + 10**9))
    copies.copy(maker.root, maker.catalog)
    desk.exceptions.end("c" * 32, "ben", NOW_US + 1)
    with maker.catalog.transaction(write=True) as tx:
        tx.exec_driver_sql("DELETE FROM verdicts WHERE seq = 2")
        tx.exec_driver_sql("UPDATE verdicts SET why = 'other' WHERE seq = 4")
        tx.exec_driver_sql(f"DELETE FROM exceptions WHERE exception_id = '{'d' * 32}'")
        tx.exec_driver_sql("UPDATE audit_subjects SET subject = 'acct_innocent' WHERE subject = 'acct_other'")
        tx.exec_driver_sql("DROP TRIGGER audit_log_no_DELETE")
        tx.exec_driver_sql("DELETE FROM audit_log WHERE seq = 3")
    with capture_logs() as logs:
        give(maker)
    assert {one["log_level"] for one in logs} == {"warning"}
    assert sorted(one["rows"] for one in logs) == [1, 2, 2]
    kept = aside(maker)
    assert {name: len(rows) for name, rows in kept.items()} == {"audit": 2, "exceptions": 1, "verdicts": 2}
    assert {row["why"] for row in kept["verdicts"]} == {"w"}
    assert [row["subject"] for row in kept["audit"] if row["seq"] != 3] == ["acct_other"]
    with capture_logs() as logs:
        give(maker)
    assert not logs, "it is said once"
    assert aside(maker) == kept
    for account in ("acct_other", "acct_1", ODD):
        Eraser(maker.lake, maker.catalog, RewriteLedger(maker.catalog, "test:1"), StandingClock(), account).erase()
        assert copies.lines_about(maker.root, account) == 0
    kept = aside(maker)
    assert {name: len(rows) for name, rows in kept.items()} == {"audit": 2, "exceptions": 1}
    assert {row["subject"] for row in kept["audit"]} == {None}


@pytest.mark.parametrize("is_copied", (True, False))
def test_what_an_erasure_accounts_for_is_not_kept_aside(maker: LakeMaker, is_copied: bool) -> None:
    desk = maker.catalog.desk
    desk.verdicts.give_all([verdict(1), verdict(2, ODD)])
    copies.copy(maker.root, maker.catalog)
    ledger = RewriteLedger(maker.catalog, "test:1")
    if is_copied:
        Eraser(maker.lake, maker.catalog, ledger, StandingClock(), "acct_1").erase()
    else:  # killed in between, and the account comes again
        ledger.erase_account("acct_1", NOW_US)
        desk.verdicts.give(replace(verdict(1), given_at_us=NOW_US + 1))
    with capture_logs() as logs:
        give(maker, account_id=ODD)
    assert not logs
    assert not (maker.root / copies.DESK / kept_aside.ASIDE).exists()


def test_a_line_of_the_copy_that_was_damaged_is_kept_aside(maker: LakeMaker) -> None:
    give(maker)
    path = maker.root / copies.DESK / "verdicts-000000000000.ndjson"
    path.write_text(path.read_text()[:-20])
    with capture_logs() as logs:
        give(maker)
    assert len(logs) == 1
    (kept,) = (maker.root / copies.DESK / kept_aside.ASIDE).glob("verdicts-*")
    assert kept_aside.lines_about(maker.root / copies.DESK, "acct_1") == 1
    kept_aside.forget(maker.root / copies.DESK, "acct_1", maker.root)
    assert not kept.exists()


def test_an_act_holds_where_its_copy_cannot_be_written(maker: LakeMaker) -> None:
    (maker.root / copies.DESK).write_text("in the way")
    with capture_logs() as logs:
        given = give(maker)
    assert [one["log_level"] for one in logs] == ["warning"]
    assert maker.catalog.desk.verdicts.standing("acct_1") == given
    (maker.root / copies.DESK).unlink()
    copies.keep(maker.root, maker.catalog)
    assert len(copies.read(maker.root).rows["verdicts"]) == 1
