"""Which rules run, on the record, on both databases."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

from pipeline.features import NAMES
from pipeline.io.catalog import Catalog
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.desk.rule_record import record_rules
from pipeline.rules import read_rules
from tests.contract.catalog_commits import insist

RULES = read_rules(None, NAMES)


def said(catalog: Catalog) -> list[tuple[str, str, str]]:
    records = catalog.desk.audit.records(AuditFilter(action="rule"))
    return [(record.action, record.subject, record.actor) for record in reversed(records)]


def test_rules_that_begin_change_and_stop_are_on_record_once(catalog: Catalog) -> None:
    assert record_rules(catalog, RULES, "ana", 1) == len(RULES)
    assert record_rules(catalog, RULES, "ben", 2) == 0
    first, second, *others = RULES
    live = replace(first, version=first.version + 1, state="shadow")
    assert record_rules(catalog, [live, *others], "ben", 3) == 2
    assert record_rules(catalog, [first, second, *others], "cid", 4) == 2
    assert said(catalog) == [
        *(("rule.began", rule.name, "ana") for rule in RULES),
        ("rule.changed", first.name, "ben"),
        ("rule.stopped", second.name, "ben"),
        ("rule.changed", first.name, "cid"),
        ("rule.began", second.name, "cid"),
    ]
    (changed, *_) = catalog.desk.audit.records(AuditFilter(subject=first.name))
    assert changed.details["before"] == {**changed.details["now"], "version": live.version, "state": "shadow"} | {
        "fingerprint": live.fingerprint[:16]
    }
    assert catalog.desk.audit.broken_at() is None


def test_of_workers_that_start_at_once_one_writes_it(url: str, catalog: Catalog) -> None:
    start = threading.Barrier(4)

    def begin() -> None:
        with contextlib.closing(Catalog.open(url, create=False)) as mine:
            start.wait()
            insist(record_rules, mine, RULES, "ana", 1)

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said(catalog)) == len(RULES)
