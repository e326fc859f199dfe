"""Which rules run, on the record: what began, changed and stopped since the record last spoke of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from pipeline.io.catalog import Catalog
from pipeline.io.desk.audit_log import Act, append
from pipeline.io.desk.numbers import next_number
from pipeline.io.desk.tables import audit_log, audit_subjects
from pipeline.rules import Rule

BEGAN: Final = "rule.began"
CHANGED: Final = "rule.changed"
STOPPED: Final = "rule.stopped"

_ACTIONS: Final = (BEGAN, CHANGED, STOPPED)


def record_rules(catalog: Catalog, rules: Sequence[Rule], actor: str, now_us: int) -> int:
    """Put on record how the rules that run now differ from those that ran before; says by how many records.

    Of several workers that start at once with the same rules one writes it, and the others find it written.
    """
    now = {rule.name: _said(rule) for rule in rules}
    with catalog.transaction() as tx:
        if not _changes(_last(tx), now):
            return 0
    with catalog.transaction(write=True) as tx:
        next_number(tx, "rule_record")  # locks out others until this is done
        acts = _changes(_last(tx), now)
        for action, name, details in acts:
            append(tx, Act(action, actor, "rule", name, details), now_us)
    return len(acts)


def _said(rule: Rule) -> dict[str, Any]:
    decides = {"version": rule.version, "state": rule.state, "fingerprint": rule.fingerprint[:16]}
    return {**decides, "severity": rule.severity, "owner": rule.owner}


def _last(tx: sa.Connection) -> dict[str, dict[str, Any]]:
    """What the record last said of each rule that runs by it."""
    columns = audit_log.c
    query = sa.select(columns.action, columns.details, audit_subjects.c.subject).join_from(
        audit_log, audit_subjects, columns.subject_sha256 == audit_subjects.c.subject_sha256
    )
    running: dict[str, dict[str, Any]] = {}
    for row in tx.execute(query.where(columns.action.in_(_ACTIONS)).order_by(columns.seq)):
        if row.action == STOPPED:
            running.pop(row.subject, None)
        else:
            running[row.subject] = json.loads(row.details)["now"]
    return running


def _changes(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, dict[str, Any]]]:
    changes: list[tuple[str, str, dict[str, Any]]] = []
    for name, said in now.items():
        if name not in before:
            changes.append((BEGAN, name, {"now": said}))
        elif before[name] != said:
            changes.append((CHANGED, name, {"now": said, "before": before[name]}))
    changes += [(STOPPED, name, {"before": said}) for name, said in before.items() if name not in now]
    return changes
