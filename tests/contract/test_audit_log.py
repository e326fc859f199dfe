"""The record of who did what, and what it says of decisions, on both databases."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipeline.io.catalog import Catalog, sqlite_url
from pipeline.io.catalog_tables import META
from pipeline.io.desk import audit_log, copies, seals, tables
from pipeline.io.desk.audit_log import Act, AuditFilter
from pipeline.io.desk.numbers import sha256_of_id
from pipeline.io.desk.seals import Compared, content_of
from pipeline.io.desk.subjects import Subjects
from pipeline.io.rewriting.ledger import RewriteLedger
from tests.contract.catalog_commits import alert_of
from tests.contract.test_desk import NOW_US, ODD, commit_alerts, entry_of, verdict_of


def unguard(tx: sa.Connection) -> None:
    """Drop what keeps anybody from changing the record, as somebody who owns the database can."""
    is_sqlite = tx.dialect.name == "sqlite"
    for name in ("audit_log_no_UPDATE", "audit_log_no_DELETE") if is_sqlite else ("audit_log_never ON audit_log",):
        tx.exec_driver_sql(f"DROP TRIGGER {name}")


def test_the_record_says_who_did_what_and_can_be_asked(catalog: Catalog) -> None:
    audit = catalog.desk.audit
    audit.record(Act("verdict.given", "ana", "account", ODD, {"decision": "benign"}), 10)
    audit.record(Act("verdicts", "ben"), 20)
    audit.record(Act("delivery.dead", "deliver", "sink", "slack"), 30)
    assert [record.actor for record in audit.records()] == ["deliver", "ben", "ana"]
    (found,) = audit.records(AuditFilter(subject=ODD))
    assert (found.subject, found.details, found.seq) == (ODD.replace("\0", "\u2400"), {"decision": "benign"}, 1)
    assert [record.action for record in audit.records(AuditFilter(action="verdict"))] == ["verdict.given"]
    assert [record.at_us for record in audit.records(AuditFilter(since_us=20, limit=1))] == [30]
    assert [record.at_us for record in audit.records(AuditFilter(actor="ben"))] == [20]


@pytest.mark.parametrize("statement", ("UPDATE audit_log SET actor = 'x'", "DELETE FROM audit_log"))
def test_the_database_refuses_to_change_the_record(url: str, catalog: Catalog, statement: str) -> None:
    catalog.desk.audit.record(Act("verdict.given", "ana"), 10)
    engine = sa.create_engine(url)
    with engine.begin() as connection, pytest.raises(sa.exc.DatabaseError, match="never changed"):
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert catalog.desk.audit.broken_at() is None


@pytest.mark.parametrize(
    ("statement", "place"),
    (
        ("UPDATE audit_log SET actor = 'x' WHERE seq = 2", 2),
        ("DELETE FROM audit_log WHERE seq = 1", 1),
        ("UPDATE audit_log SET details = '{}' WHERE seq = 3", 3),
    ),
)
def test_a_record_that_was_changed_behind_its_back_is_found(
    url: str, catalog: Catalog, statement: str, place: int
) -> None:
    for number in range(3):
        catalog.desk.audit.record(Act("verdict.given", "ana", details={"number": number}), number)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        unguard(connection)
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert catalog.desk.audit.broken_at() == place


@pytest.mark.parametrize(
    ("statement", "changed"),
    (
        ("UPDATE verdicts SET decision = 'benign' WHERE seq = 1", [f"verdict {1:032x}"]),
        ("UPDATE verdicts SET why = 'x', account_id = 'acct_2'", [f"verdict {1:032x}", f"verdict {2:032x}"]),
        ('UPDATE verdicts SET "row" = NULL', [f"verdict {1:032x}"]),
        ("UPDATE exceptions SET expires_at_us = expires_at_us + 1", [f"exception {3:032x}", f"exception {4:032x}"]),
        ("UPDATE exceptions SET ended_at_us = NULL, ended_by = ''", [f"exception {4:032x}"]),
        ("UPDATE exceptions SET ended_at_us = 1 WHERE ended_at_us IS NULL", [f"exception {3:032x}"]),
    ),
)
def test_a_decision_that_was_changed_behind_the_records_back_is_found(
    url: str, catalog: Catalog, statement: str, changed: list[str]
) -> None:
    desk = catalog.desk
    desk.verdicts.give_all([verdict_of(1), verdict_of(2, account_id=ODD, row=None)])
    for number in (3, 4):
        desk.exceptions.add(entry_of(number, subject=ODD))
    assert desk.exceptions.end(f"{4:032x}", "ben", NOW_US + 1)
    assert desk.audit.compared() == Compared(sealed=4)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()
    assert desk.audit.compared().changed == changed
    assert desk.audit.broken_at() is None


@pytest.mark.parametrize("has_place", (True, False))
def test_verdicts_whose_order_was_changed_are_found(catalog: Catalog, has_place: bool) -> None:
    """The last one of an account stands."""
    desk = catalog.desk
    desk.verdicts.give_all([verdict_of(1), verdict_of(2, account_id="acct_2"), verdict_of(3), verdict_of(4)])
    with catalog.transaction(write=True) as tx:
        if not has_place:  # as older versions recorded them
            unguard(tx)
            for row in tx.execute(sa.select(tables.audit_log)).mappings().all():
                details = json.loads(row["details"])
                assert details.pop("place") == row["seq"]
                mine = tables.audit_log.c.seq == row["seq"]
                tx.execute(sa.update(tables.audit_log).where(mine).values(details=json.dumps(details)))
    assert desk.audit.compared() == Compared(sealed=4)
    with catalog.transaction(write=True) as tx:
        for former, new in ((1, 99), (4, 1), (99, 4)):
            tx.exec_driver_sql(f"UPDATE verdicts SET seq = {new} WHERE seq = {former}")
    standing = desk.verdicts.standing("acct_1")
    assert standing is not None
    assert standing.verdict_id == f"{1:032x}"
    assert f"verdict {1:032x}" in desk.audit.compared().changed
    assert f"verdict {2:032x}" not in desk.audit.compared().changed


def test_records_that_were_made_to_be_about_somebody_else_or_nobody_are_found(catalog: Catalog) -> None:
    desk = catalog.desk
    desk.verdicts.give_all([verdict_of(1), verdict_of(2, account_id=ODD), verdict_of(3), verdict_of(4, account_id="x")])
    desk.audit.record(Act("content.seen", "ana", "account", "acct_seen"), 9)
    RewriteLedger(catalog, "test:1").erase_account("acct_seen", NOW_US)
    RewriteLedger(catalog, "test:1").erase_account("x", NOW_US)
    assert desk.audit.subjects() == Subjects(named=2)
    with catalog.transaction(write=True) as tx:
        tx.exec_driver_sql("UPDATE audit_subjects SET subject = 'acct_innocent' WHERE subject = 'acct_1'")
    assert desk.audit.subjects() == Subjects(named=1, renamed=["record 1"])
    with catalog.transaction(write=True) as tx:
        tx.exec_driver_sql("UPDATE audit_subjects SET subject = 'acct_1' WHERE subject = 'acct_innocent'")
        tx.execute(sa.delete(tables.audit_subjects).where(tables.audit_subjects.c.id_sha256 == sha256_of_id(ODD)))
    assert desk.audit.subjects() == Subjects(named=1, struck=["record 2"])
    assert not desk.audit.subjects().is_sound
    desk.verdicts.give(verdict_of(5, account_id="x"))  # it came back, and is struck out once more, by hand
    with catalog.transaction(write=True) as tx:
        tx.execute(sa.delete(tables.audit_subjects).where(tables.audit_subjects.c.subject == "x"))
    assert desk.audit.subjects() == Subjects(named=1, struck=["record 2", "record 4"])
    assert desk.audit.broken_at() is None


def test_decisions_that_were_removed_or_put_in_are_told_from_those_that_were_erased(catalog: Catalog) -> None:
    desk = catalog.desk
    desk.verdicts.give_all([verdict_of(1), verdict_of(2), verdict_of(3, account_id="acct_2")])
    desk.exceptions.add(entry_of(4, subject="acct_1"))
    desk.exceptions.add(entry_of(5, subject="acct_3"))
    RewriteLedger(catalog, "test:1").erase_account("acct_1", NOW_US)
    assert desk.audit.compared() == Compared(sealed=2, erased=3)
    again = desk.verdicts.give(verdict_of(1, given_at_us=NOW_US + 99))  # of a file that is loaded once more
    assert desk.audit.compared() == Compared(sealed=3, erased=3)
    with catalog.transaction(write=True) as tx:
        row = dict(tx.execute(sa.select(tables.verdicts).where(tables.verdicts.c.seq == again.seq)).mappings().one())
        tx.execute(sa.insert(tables.verdicts).values({**row, "seq": 900, "verdict_id": "e" * 32}))
        tx.exec_driver_sql(f"DELETE FROM verdicts WHERE verdict_id = '{3:032x}'")
        tx.exec_driver_sql(f"UPDATE exceptions SET exception_id = '{'d' * 32}'")
    found = desk.audit.compared()
    assert found.removed == [f"verdict {3:032x}", f"exception {5:032x}"]
    assert found.unrecorded == [f"verdict {'e' * 32}", f"exception {'d' * 32}"]
    assert (found.sealed, found.erased, found.changed, found.is_sound) == (1, 3, [], False)


def test_what_an_older_versions_erasure_may_have_removed_is_not_said_to_be_wrong(catalog: Catalog) -> None:
    desk = catalog.desk
    desk.verdicts.give(verdict_of(1))
    desk.audit.record(Act("erase", "host:1", details={"salt": "s", "account_sha256": "d"}), NOW_US)
    desk.verdicts.give(verdict_of(2))
    with catalog.transaction(write=True) as tx:
        tx.execute(sa.delete(tables.verdicts))
    assert desk.audit.compared() == Compared(unclear=1, removed=[f"verdict {2:032x}"])


def test_what_is_gone_from_an_older_record_may_have_gone_with_an_erasure_that_a_lost_catalog_had(
    catalog: Catalog,
) -> None:
    """It was copied into the lake only with the next act."""
    desk = catalog.desk
    desk.audit.record(Act("verdict.given", "ana", details={"verdict": f"{1:032x}", "sha256": "s"}), NOW_US)
    assert desk.audit.compared() == Compared(removed=[f"verdict {1:032x}"])
    desk.verdicts.give(verdict_of(2))
    desk.audit.record(Act("catalog.rebuilt", "host:1"), NOW_US)
    with catalog.transaction(write=True) as tx:
        tx.execute(sa.delete(tables.verdicts))
    assert desk.audit.compared() == Compared(unclear=1, removed=[f"verdict {2:032x}"])


def test_a_long_record_is_read_a_portion_at_a_time(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "PORTION", 3)
    monkeypatch.setattr(seals, "_PORTION", 3)
    desk = catalog.desk
    desk.verdicts.give_all([verdict_of(number) for number in range(1, 9)])
    assert desk.audit.broken_at() is None
    assert desk.audit.compared() == Compared(sealed=8)
    for limit in (None, 0, 1, 3, 4, 8, 99):
        wanted = list(range(8, 0, -1))[:limit]
        assert [one.seq for one in desk.audit.walk(AuditFilter(limit=limit))] == wanted
    walk = desk.audit.walk()
    assert [next(walk).seq, next(walk).seq] == [8, 7]
    desk.verdicts.give(verdict_of(9))  # while somebody reads
    assert [one.seq for one in walk] == list(range(6, 0, -1))


def test_what_was_recorded_before_contents_had_hashes_is_counted_apart(catalog: Catalog) -> None:
    desk = catalog.desk
    desk.verdicts.give_all([verdict_of(1), verdict_of(2)])
    with catalog.transaction(write=True) as tx:
        unguard(tx)
        tx.exec_driver_sql(f'UPDATE audit_log SET details = \'{{"verdict": "{1:032x}"}}\' WHERE seq = 1')
        tx.exec_driver_sql("DELETE FROM verdicts WHERE seq = 2")
    assert desk.audit.compared() == Compared(unsealed=1, removed=[f"verdict {2:032x}"])


def test_an_erased_account_is_not_named_any_more_and_the_record_stays_whole(catalog: Catalog) -> None:
    account = alert_of(1).entity_id
    catalog.desk.verdicts.give(verdict_of(1, account_id=account))
    catalog.desk.exceptions.add(entry_of(subject=account))
    other = catalog.desk.verdicts.give(verdict_of(2, account_id="acct_other"))
    commit_alerts(catalog, (1,), orgs={account: "org_1"})
    catalog.desk.claims.claim(alert_of(1).alert_id, "ana", 1)
    erased = RewriteLedger(catalog, "test:1").erase_account(account, NOW_US)
    assert (erased.alerts, erased.decisions) == (1, 2)
    assert catalog.desk.verdicts.find() == [other]
    assert catalog.desk.exceptions.find() == []
    assert catalog.desk.exceptions.suppressed() == {}
    assert catalog.desk.claims.holders([alert_of(1).alert_id]) == {}
    assert account not in {record.subject for record in catalog.desk.audit.records()}
    assert [record.action for record in catalog.desk.audit.records(AuditFilter(subject=account))]
    assert catalog.desk.audit.broken_at() is None


def test_an_erased_accounts_id_cannot_be_guessed_from_its_records(url: str, catalog: Catalog, tmp_path: Path) -> None:
    """Whoever knows the id finds them: with the catalog's key, also after it was lost and made anew."""
    catalog.desk.verdicts.give(verdict_of(1))
    catalog.desk.exceptions.add(entry_of(2, subject="acct_1"))
    catalog.desk.audit.record(Act("content.queried", "ana", keyed={"query": "SELECT 'acct_1'"}), NOW_US)
    RewriteLedger(catalog, "test:1").erase_account("acct_1", NOW_US)
    said = json.dumps([asdict(record) for record in catalog.desk.audit.records()])
    for text in ("acct_1", "SELECT 'acct_1'"):
        assert hashlib.sha256(text.encode()).hexdigest() not in said
    assert len(catalog.desk.audit.records(AuditFilter(subject="acct_1"))) == 3
    copies.copy(tmp_path, catalog)
    with catalog.transaction(write=True) as tx:
        for table in reversed(META.sorted_tables):
            tx.execute(sa.schema.DropTable(table))
    catalog.close()
    with contextlib.closing(Catalog.open(url, create=True)) as new:
        copies.restore(new, copies.read(tmp_path), {})
        assert len(new.desk.audit.records(AuditFilter(subject="acct_1"))) == 3
        assert new.desk.audit.broken_at() is None


def test_two_catalogs_hash_one_account_differently(tmp_path: Path) -> None:
    digests = set()
    for name in ("a.db", "b.db"):
        with contextlib.closing(Catalog.open(sqlite_url(tmp_path / name), create=True)) as catalog:
            catalog.desk.verdicts.give(verdict_of(1))
            digests.add(catalog.desk.audit.records()[0].subject_sha256)
    assert len(digests) == 2


def test_records_that_version_6_hashed_without_a_key_are_found_compared_and_counted(url: str, catalog: Catalog) -> None:
    desk, digest = catalog.desk, hashlib.sha256(b"acct_1").hexdigest()
    desk.verdicts.give(verdict_of(1))
    row = {"subject_sha256": digest, "subject": "acct_1"}
    with catalog.transaction(write=True) as tx:  # as version 6 left it
        plain = dict(tx.execute(sa.select(tables.verdicts)).mappings().one())
        content = hashlib.sha256(content_of(plain).encode()).hexdigest()
        details = json.dumps({"sha256": content, "verdict": f"{1:032x}"})
        unguard(tx)
        tx.execute(sa.update(tables.audit_log).values(subject_sha256=digest, details=details))
        tx.execute(sa.delete(tables.audit_subjects))
        tx.exec_driver_sql("DROP INDEX ix_audit_subjects_id_sha256")
        tx.exec_driver_sql("ALTER TABLE audit_subjects DROP COLUMN id_sha256")
        tx.execute(sa.text("INSERT INTO audit_subjects VALUES (:subject_sha256, :subject)"), row)
        tx.exec_driver_sql("DROP TABLE audit_keys")
        tx.exec_driver_sql("UPDATE meta SET value = '6' WHERE key = 'schema_version'")
    with contextlib.closing(Catalog.open(url, create=True)) as migrated:
        audit = migrated.desk.audit
        migrated.desk.verdicts.give(verdict_of(2))
        assert [one.subject for one in audit.records(AuditFilter(subject="acct_1"))] == ["acct_1", "acct_1"]
        assert audit.compared() == Compared(sealed=2)
        assert migrated.desk.queue.account_of(digest) == "acct_1"
        erased = RewriteLedger(migrated, "test:1").erase_account("acct_1", NOW_US)
        assert erased.unkeyed == 1
        assert audit.subjects() == Subjects(struck=["record 1"])
        audit.record(Act("erase", "test:1", details={"unkeyed": erased.unkeyed}), NOW_US)
        assert audit.subjects() == Subjects(unclear=1)
        assert [one.subject for one in audit.records(AuditFilter(subject="acct_1"))] == ["", "", ""]


def test_what_an_older_catalog_recorded_is_taken_over(url: str, catalog: Catalog) -> None:
    catalog.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in (
            "DROP TABLE audit_log",
            "CREATE TABLE audit (audit_id VARCHAR PRIMARY KEY, at_us BIGINT, kind VARCHAR, worker VARCHAR, details TEXT)",
            "INSERT INTO audit VALUES ('b', 2, 'erase', 'host:2', '{\"rows\": 2}')",
            "INSERT INTO audit VALUES ('a', 1, 'erase', 'host:1', '{\"rows\": 1}')",
            "UPDATE meta SET value = '5' WHERE key = 'schema_version'",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    with contextlib.closing(Catalog.open(url, create=True)) as migrated:
        found = migrated.desk.audit.records()
        assert [(one.actor, one.details["rows"], one.at_us) for one in found] == [("host:2", 2, 2), ("host:1", 1, 1)]
        assert migrated.desk.audit.broken_at() is None
