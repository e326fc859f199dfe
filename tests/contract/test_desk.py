"""What people decide and who did what, on both databases."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline.batch import Partition
from pipeline.decisions import AllowEntry, JudgedRow, Verdict
from pipeline.errors import FencedError
from pipeline.io.catalog import Catalog
from pipeline.io.catalog_alerts import NEW, PAST, SUPPRESSED
from pipeline.io.catalog_tables import META
from pipeline.io.desk import copies
from pipeline.io.desk.audit_log import Act, AuditFilter
from pipeline.io.desk.claim_book import ClaimBook
from pipeline.io.desk.seals import Compared
from pipeline.io.desk.topic_book import Read
from tests.contract.catalog_commits import P0, alert_of, commit_of, insist

NOW_US = 1_780_000_000_000_000
HOUR_US = 3_600_000_000
ODD = "a\"'\x00\x1b[31m<script>/../" + "é" * 5_000
"""What nobody should call an account."""


def verdict_of(number: int, **changed: Any) -> Verdict:
    row = JudgedRow(P0, 7, NOW_US, 0.5, {"burst": 1.5, "unknown": None}, exchanges=9, kind="count")
    verdict = Verdict(f"{number:032x}", "acct_1", "harvesting", "one frame", "ana", NOW_US + number, row=row)
    return replace(verdict, **changed)


def entry_of(number: int = 0, **changed: Any) -> AllowEntry:
    # at the commits' own time
    entry = AllowEntry(
        f"{number:032x}", "account", "account-1", "", "sales", "contract", NOW_US, "ana", NOW_US + HOUR_US
    )
    return replace(entry, **changed)


def commit_alerts(catalog: Catalog, numbers: tuple[int, ...], **how: Any) -> dict[int, str]:
    """Commit alerts, and say what the outbox makes of each."""
    claim = catalog.take(P0) or catalog.start_at(P0, 0)
    commit = replace(commit_of(P0, claim.next_offset, claim.next_offset + 10), committed_at_us=NOW_US)
    catalog.commit(commit, claim.epoch, [], alerts=[alert_of(number) for number in numbers], **how)
    states = catalog.outbox()
    return {number: states[alert_of(number).alert_id] for number in numbers}


def test_a_verdict_is_kept_whole_and_in_order(catalog: Catalog) -> None:
    first = catalog.desk.verdicts.give(verdict_of(1))
    second = catalog.desk.verdicts.give(verdict_of(2, account_id=ODD, about_us=5, alert_id="a" * 32, row=None))
    assert first == replace(verdict_of(1), seq=first.seq)
    assert second.seq > first.seq
    found = catalog.desk.verdicts.after(0, 10)
    assert [one.seq for one in found] == [first.seq, second.seq]
    assert found[0] == first
    assert found[1].account_id == ODD.replace("\0", "\u2400")
    assert catalog.desk.verdicts.after(first.seq, 10) == [found[1]]
    assert catalog.desk.verdicts.of(ODD) == [found[1]]


def test_the_same_verdict_again_changes_nothing(catalog: Catalog) -> None:
    first = catalog.desk.verdicts.give(verdict_of(1))
    assert catalog.desk.verdicts.give(verdict_of(1, why="another reason")) == first
    assert len(catalog.desk.verdicts.find()) == 1
    assert len(catalog.desk.audit.records()) == 1


def test_the_last_verdict_stands_unless_it_was_withdrawn(catalog: Catalog) -> None:
    book = catalog.desk.verdicts
    assert book.standing("acct_1") is None
    book.give(verdict_of(1))
    second = book.give(verdict_of(2, decision="benign"))
    assert book.standing("acct_1") == second
    third = book.give(verdict_of(3, decision="withdrawn"))
    assert book.standing("acct_1") is None
    fourth = book.give(verdict_of(4))
    assert [book.replaced_by(one) for one in (book.give(verdict_of(1)), second, third, fourth)] == [
        None, book.give(verdict_of(1)), second, None,
    ]  # fmt: skip
    assert [one.decision for one in book.of("acct_1")] == ["harvesting", "withdrawn", "benign", "harvesting"]


def test_of_verdicts_given_at_once_none_comes_late(url: str, catalog: Catalog) -> None:
    """Who has read up to a place has read all below it: a reader follows while many write."""
    writers, each = 4, 10
    seen: list[int] = []
    done = threading.Event()

    def write(writer: int) -> None:
        with contextlib.closing(Catalog.open(url, create=False)) as mine:
            for number in range(each):
                insist(
                    mine.desk.verdicts.give,
                    verdict_of(0, verdict_id=uuid.uuid5(uuid.NAMESPACE_OID, f"{writer} {number}").hex),
                )

    def read() -> None:
        with contextlib.closing(Catalog.open(url, create=False)) as mine:
            while not (done.is_set() and not mine.desk.verdicts.after(max(seen, default=0), 100)):
                seen.extend(one.seq for one in mine.desk.verdicts.after(max(seen, default=0), 100))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert seen == sorted(one.seq for one in catalog.desk.verdicts.find())
    assert len(seen) == writers * each
    assert catalog.desk.audit.broken_at() is None


def test_a_commit_says_up_to_which_verdict_its_models_have_learned(catalog: Catalog) -> None:
    claim = catalog.start_at(P0, 0)
    catalog.commit(commit_of(P0, 0, 10), claim.epoch, [], verdict_seq=3)
    catalog.commit(commit_of(P0, 10, 20), claim.epoch, [])
    catalog.commit(commit_of(P0, 20, 25), claim.epoch, [], verdict_seq=4)
    assert catalog.desk.verdicts.marks(P0) == [(10, 3), (25, 4)]
    assert catalog.desk.verdicts.marks(Partition("other", 0)) == []


def test_the_same_exception_again_changes_nothing(catalog: Catalog) -> None:
    book, odd = catalog.desk.exceptions, entry_of(subject=ODD)
    first = book.add(odd)
    assert first == replace(odd, subject=ODD.replace("\0", "\u2400"))
    assert book.add(replace(odd, reason="another reason", created_by="ben")) == first
    assert book.find() == [first]
    assert [record.actor for record in catalog.desk.audit.records()] == ["ana"]
    assert catalog.desk.audit.compared() == Compared(sealed=1)
    assert book.end(first.exception_id, "ben", NOW_US)
    assert book.add(odd).state_at(NOW_US) == "ended"  # and stays so


def test_an_exception_that_is_sent_at_once_by_several_is_one(url: str, catalog: Catalog) -> None:
    added: list[AllowEntry] = []

    def add() -> None:
        with contextlib.closing(Catalog.open(url, create=False)) as mine:
            added.append(insist(mine.desk.exceptions.add, entry_of()))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert added == [entry_of()] * 4
    assert catalog.desk.exceptions.find() == [entry_of()]
    assert len(catalog.desk.audit.records()) == 1


def test_an_exception_covers_its_account_until_it_ends(catalog: Catalog) -> None:
    account = alert_of(1).entity_id
    entry = entry_of(subject=account)
    catalog.desk.exceptions.add(entry)
    assert catalog.desk.exceptions.find() == [entry]
    assert commit_alerts(catalog, (1,)) == {1: SUPPRESSED}
    assert catalog.desk.exceptions.suppressed() == {entry.exception_id: 1}
    assert catalog.desk.exceptions.suppressed_by([alert_of(1).alert_id]) == {alert_of(1).alert_id: entry.exception_id}
    assert catalog.alert(alert_of(1).alert_id) is not None
    assert catalog.desk.exceptions.end(entry.exception_id, "ben", NOW_US - 1)
    assert not catalog.desk.exceptions.end(entry.exception_id, "ben", NOW_US - 1)
    assert catalog.desk.exceptions.find()[0].state_at(NOW_US) == "ended"
    assert commit_alerts(catalog, (2,)) == {2: NEW}


def test_an_alert_that_only_a_backfill_raised_under_an_exception_is_sent_once_the_live_job_raises_it(
    url: str, catalog: Catalog
) -> None:
    entry = entry_of(subject=alert_of(1).entity_id)
    catalog.desk.exceptions.add(entry)
    with contextlib.closing(Catalog.open(url, create=False)) as backfill:
        backfill.alerts_are = PAST
        assert commit_alerts(backfill, (1,)) == {1: PAST}
    assert catalog.desk.exceptions.suppressed() == {entry.exception_id: 1}
    assert catalog.desk.exceptions.end(entry.exception_id, "ben", NOW_US)
    assert commit_alerts(catalog, (1,)) == {1: NEW}


def test_an_expired_exception_covers_nothing(catalog: Catalog) -> None:
    catalog.desk.exceptions.add(entry_of(subject=alert_of(1).entity_id, expires_at_us=NOW_US))
    assert commit_alerts(catalog, (1,)) == {1: NEW}
    assert catalog.desk.exceptions.find()[0].state_at(NOW_US) == "expired"


@pytest.mark.parametrize(
    ("scope", "subject", "rule", "expected"),
    (
        ("organisation", "org_1", "", SUPPRESSED),
        ("organisation", "org_2", "", NEW),
        ("organisation", "", "", NEW),
        ("rule", alert_of(1).rule, "", SUPPRESSED),
        ("rule", "another", "", NEW),
        ("account", alert_of(1).entity_id, alert_of(1).rule, SUPPRESSED),
        ("account", alert_of(1).entity_id, "another", NEW),
    ),
)
def test_an_exception_covers_what_it_speaks_of(
    catalog: Catalog, scope: Any, subject: str, rule: str, expected: str
) -> None:
    catalog.desk.exceptions.add(entry_of(scope=scope, subject=subject, rule=rule))
    assert commit_alerts(catalog, (1,), orgs={alert_of(1).entity_id: "org_1"}) == {1: expected}


def test_an_alert_has_one_holder(catalog: Catalog) -> None:
    claims = catalog.desk.claims
    assert claims.claim("a1", "ana", 1) == "ana"
    assert claims.claim("a1", "ben", 2) == "ana"
    assert claims.holders(["a1", "a2"]) == {"a1": "ana"}
    assert claims.release("a1", "ben", 3)
    assert not claims.release("a1", "ben", 4)
    assert claims.claim("a1", "ben", 5) == "ben"
    actions = [record.action for record in catalog.desk.audit.records()]
    assert actions == ["alert.claimed", "alert.released", "alert.claimed"]


def test_an_alert_that_is_released_while_somebody_claims_it_is_theirs(url: str, catalog: Catalog) -> None:
    """Right after the claim has found it taken; SQLite lets nobody in between."""
    catalog.desk.claims.claim("a1", "ana", 1)
    released: list[bool] = []
    with contextlib.closing(Catalog.open(url, create=False)) as other:

        @contextlib.contextmanager
        def transaction(*, write: bool = False, snapshot: bool = False) -> Iterator[sa.Connection]:
            with catalog.transaction(write=write, snapshot=snapshot) as tx:

                @sa.event.listens_for(tx, "after_cursor_execute")
                def release(*call: Any) -> None:
                    if "INSERT INTO claims" in call[2] and not released:
                        released.append(tx.dialect.name == "postgresql" and other.desk.claims.release("a1", "ana", 2))

                yield tx

        holder = ClaimBook(transaction).claim("a1", "ben", 3)
    assert holder == ("ben" if released == [True] else "ana")
    assert catalog.desk.claims.holders(["a1"]) == {"a1": holder}
    assert released == ["postgresql" in url]


def test_a_claim_is_released_only_if_it_is_still_with_whom_it_was_seen_with(catalog: Catalog) -> None:
    claims = catalog.desk.claims
    claims.claim("a1", "cem", 1)
    claims.claim("a2", "cem", 1)
    for seen in ("ana", "", "CEM", "ce", "%"):
        assert not claims.release("a1", "ana", 2, seen)
    assert not claims.release("a3", "ana", 2, "cem")
    assert claims.holders(["a1", "a2", "a3"]) == {"a1": "cem", "a2": "cem"}
    assert claims.release("a1", "ana", 3, "cem")
    assert not claims.release("a1", "ana", 4, "cem")
    assert claims.holders(["a1", "a2"]) == {"a2": "cem"}
    released = catalog.desk.audit.records(AuditFilter(action="alert.released"))
    assert [(record.actor, record.subject, record.details) for record in released] == [
        ("ana", "a1", {"held_by": "cem"})
    ]


def test_a_topic_of_verdicts_moves_with_them_or_not_at_all(catalog: Catalog) -> None:
    book, where = catalog.desk.topics, Partition("verdicts", 3)
    (given,) = book.give(where, None, Read(5, "t"), [verdict_of(1)], [(Act("verdict.refused", "kafka"), NOW_US)])
    assert catalog.desk.verdicts.find() == [given]
    for before in (None, Read(4, "t"), Read(5, "u")):
        with pytest.raises(FencedError, match="verdicts-3"):
            book.give(where, before, Read(9, "t"), [verdict_of(2)])
    assert book.read("verdicts") == {3: Read(5, "t")}
    assert book.give(where, Read(5, "t"), Read(9, "t"), [verdict_of(1)]) == [given]
    assert book.read("verdicts") == {3: Read(9, "t")}
    assert [record.action for record in catalog.desk.audit.records()] == ["verdict.refused", "verdict.given"]


def test_what_stands_is_told_of_many_accounts_at_once(catalog: Catalog) -> None:
    book = catalog.desk.verdicts
    given = book.give_all([verdict_of(number, account_id=f"acct_{number}") for number in range(1, 1_100)])
    book.give(verdict_of(2_000, account_id="acct_2", decision="withdrawn"))
    last = book.give(verdict_of(2_001, account_id="acct_3", decision="unsure"))
    assert book.known([one.verdict_id for one in given] + ["f" * 32]) == {one.verdict_id: one for one in given}
    standing = book.standing_of([f"acct_{number}" for number in range(2_000)])
    expected = {one.account_id: one for one in given if one.account_id != "acct_2"} | {"acct_3": last}
    assert standing == expected


def test_the_copy_in_the_lake_gives_all_of_it_back(url: str, catalog: Catalog, tmp_path: Path) -> None:
    desk, account = catalog.desk, alert_of(1).entity_id
    desk.exceptions.add(entry_of(subject=account))
    commit_alerts(catalog, (1,), orgs={account: "org_1"}, verdict_seq=1)
    desk.claims.claim(alert_of(1).alert_id, "ana", NOW_US)
    desk.topics.give(Partition("v", 0), None, Read(5, "t"), [verdict_of(1), verdict_of(2, account_id=ODD, row=None)])
    copies.copy(tmp_path, catalog)
    copies.copy(tmp_path, catalog)  # changes nothing
    before = desk.verdicts.find(), desk.exceptions.find(), desk.audit.records(), desk.verdicts.marks(P0)
    with catalog.transaction(write=True) as tx:
        for table in reversed(META.sorted_tables):
            tx.execute(sa.schema.DropTable(table))
    catalog.close()
    with contextlib.closing(Catalog.open(url, create=True)) as new:
        for _ in range(2):
            copies.restore(new, copies.read(tmp_path), {P0: 1_000})
        found = new.desk
        assert before == (
            found.verdicts.find(), found.exceptions.find(), found.audit.records(), found.verdicts.marks(P0),
        )  # fmt: skip
        assert found.exceptions.suppressed() == {entry_of().exception_id: 1}
        assert found.claims.holders([alert_of(1).alert_id]) == {alert_of(1).alert_id: "ana"}
        assert found.topics.read("v") == {0: Read(5, "t")}
        found.verdicts.give(verdict_of(3))
        assert found.audit.broken_at() is None
