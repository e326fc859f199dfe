"""Judgements become verdicts: joined to what was stored at the moment that they speak of, and put on record.

The commands, the triage page, files and topics all come through here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.alerts import Alert, without_nul
from pipeline.decisions import JudgedRow, Verdict
from pipeline.errors import ConfigError
from pipeline.io.catalog import AlertFilter, Catalog
from pipeline.io.desk import copies
from pipeline.io.desk.stored_rows import UnreadRowsError, Wanted, near_names, rows_at, seen
from pipeline.io.lake import Lake
from pipeline.judging import Judgement, check, never_seen, shown


@dataclass(frozen=True, slots=True)
class Refused:
    """A judgement that cannot be a verdict.

    Attributes:
        judgement: it.
        why: what is wrong with it, and what to do.
        kind: the same without anybody's name: `unsound`, `never seen`, `not scored by then`.
    """

    judgement: Judgement
    why: str
    kind: str = "unsound"


@dataclass(frozen=True, slots=True)
class _Aimed:
    """A judgement that is sound in itself, and which row it speaks of; None: of none."""

    judgement: Judgement
    wanted: Wanted | None


def judge(lake: Lake, catalog: Catalog, judgement: Judgement, now_us: int, *, anyway: bool = False) -> Verdict:
    """Put a verdict on record, with the row of features and scores that was stored at the moment it speaks of.

    Args:
        lake: where the rows are.
        catalog: where the record is.
        judgement: what is said of whom.
        now_us: wall clock.
        anyway: also of an account that was never seen, or of a moment before it was, and where a file of the lake that
            may hold the row cannot be read.

    Returns:
        The verdict as it stands.  Its `row` is None where nothing was stored: it then teaches the models nothing.  One
        whose `verdict_id` is on record already is returned as it was given then.

    Raises:
        ConfigError: it cannot be given: what is wrong, and what to do.
        NoRightError: the catalog's role may not read or record it.
        RetryableError: the catalog does not answer.
        SchemaError: the catalog is damaged.
        UnreadRowsError: a file of the lake is missing or broken, and may hold the row.
    """
    try:
        (prepared,) = prepare(lake, catalog, [judgement], now_us, anyway=anyway, unread_too=anyway)
    except UnreadRowsError as error:  # without `anyway`: with it, no such file is in the way
        raise UnreadRowsError(f"{error}; --anyway records the verdict without what this file may hold") from error
    if isinstance(prepared, Refused):
        raise ConfigError(prepared.why)
    given = catalog.desk.verdicts.give(prepared)
    copies.keep(lake.root, catalog)
    return given


def prepare(
    lake: Lake,
    catalog: Catalog,
    judgements: Sequence[Judgement],
    now_us: int,
    *,
    anyway: bool = False,
    unread_too: bool = False,
) -> list[Verdict | Refused]:
    """What becomes of judgements, in their order; nothing is put on record yet.

    Args:
        lake: as for `judge`, like all that follows.
        catalog: asked for alerts and verdicts.
        judgements: what is said of whom.
        now_us: wall clock.
        anyway: also of accounts that were never seen, and of moments before they were.
        unread_too: also where a file of the lake that may hold the row cannot be read: `Verdict.unread` names it.

    Raises:
        NoRightError: the catalog's role may not read what is asked; that refuses no judgement.
        RetryableError: the catalog does not answer.
        SchemaError: the catalog is damaged.
        UnreadRowsError: a file of the lake is missing or broken, and may hold a row.
    """
    known = catalog.desk.verdicts.known([one.verdict_id for one in judgements if one.verdict_id])
    standing: dict[str, bool] = {}
    results: dict[int, Verdict | Refused] = {}
    aimed: dict[int, _Aimed] = {}
    for number, judgement in enumerate(judgements):
        if judgement.verdict_id in known:
            results[number] = known[judgement.verdict_id]
            continue
        try:
            check(judgement, now_us)
            aimed[number] = _aim(catalog, judgement, standing)
        except ConfigError as error:
            results[number] = Refused(judgement, str(error))
    unread: dict[int, str] | None = {} if unread_too else None
    results |= _joined(lake, catalog, aimed, now_us, anyway=anyway, unread=unread)
    return [results[number] for number in range(len(judgements))]


def _aim(catalog: Catalog, judgement: Judgement, standing: dict[str, bool]) -> _Aimed:
    """Settle which alert a judgement answers, and of which moment it speaks.

    Args:
        catalog: asked for alerts and verdicts.
        judgement: sound in itself.
        standing: whether a verdict stands, of the accounts that were judged just before; added to.
    """
    account = judgement.account_id
    name = without_nul(account)
    alert = _alert_of(catalog, judgement)
    if judgement.decision == "withdrawn":
        stands = standing[name] if name in standing else catalog.desk.verdicts.standing(account) is not None
        if not stands:
            raise ConfigError(f"no verdict on account {shown(account)} stands, so there is none to withdraw")
        standing[name] = False
        return _Aimed(replace(judgement, alert_id=alert.alert_id if alert else ""), None)
    standing[name] = True
    if alert is None and judgement.about_us is None:
        newest = catalog.alerts(AlertFilter(entity_id=account, state="live", limit=1))
        alert = newest[0] if newest else None
    if alert is None:
        return _Aimed(judgement, Wanted(account, judgement.about_us))
    if judgement.about_us is not None:  # another moment than its alert's, by the analyst's word
        return _Aimed(replace(judgement, alert_id=alert.alert_id), Wanted(account, judgement.about_us))
    answered = replace(judgement, alert_id=alert.alert_id, about_us=alert.raised_at_us)
    return _Aimed(answered, Wanted(account, alert.raised_at_us, alert.where, alert.offset))


def _alert_of(catalog: Catalog, judgement: Judgement) -> Alert | None:
    """The alert that a judgement names."""
    prefix = judgement.alert_id.strip().lower()
    if not prefix:
        return None
    found = catalog.alerts(AlertFilter(id_prefix=prefix, limit=2)) if prefix.isalnum() else []
    if len(found) != 1:
        how_many = "several alerts' ids begin" if found else "no alert's id begins"
        raise ConfigError(f"{how_many} with {shown(prefix)}; `stillwatch alerts list --state all` shows them")
    if found[0].entity_id != without_nul(judgement.account_id):
        raise ConfigError(
            f"alert {found[0].alert_id} is about account {shown(found[0].entity_id)}, and the verdict about "
            f"{shown(judgement.account_id)}"
        )
    return found[0]


def _joined(
    lake: Lake,
    catalog: Catalog,
    aimed: Mapping[int, _Aimed],
    now_us: int,
    *,
    anyway: bool,
    unread: dict[int, str] | None,
) -> dict[int, Verdict | Refused]:
    """Each judgement with its row, or why it cannot be a verdict."""
    numbers = [number for number, one in aimed.items() if one.wanted is not None]
    wanted = [one.wanted for one in aimed.values() if one.wanted is not None]
    rows = dict(zip(numbers, rows_at(lake, catalog, wanted, unread), strict=True))
    unread = {numbers[place]: path for place, path in (unread or {}).items()}
    missing = {number: aimed[number].judgement for number in numbers if rows[number] is None and number not in unread}
    refused = {} if anyway else _refused(lake, catalog, missing)
    return {
        number: refused[number]
        if number in refused
        else _verdict(one.judgement, rows.get(number), now_us, unread.get(number, ""))
        for number, one in aimed.items()
    }


def _refused(lake: Lake, catalog: Catalog, missing: Mapping[int, Judgement]) -> dict[int, Refused]:
    """Of judgements without a row, those on accounts that were never seen, and of moments before they were scored."""
    if not missing:
        return {}
    ever = rows_at(lake, catalog, [Wanted(judgement.account_id) for judgement in missing.values()])
    there = seen(lake, catalog, (judgement.account_id for judgement in missing.values()))
    refused = {}
    for (number, judgement), row in zip(missing.items(), ever, strict=True):
        account = judgement.account_id
        if row is None and account not in there:
            refused[number] = Refused(
                judgement, str(never_seen(account, near_names(lake, catalog, account))), "never seen"
            )
        elif row is not None:
            refused[number] = Refused(
                judgement,
                f"account {shown(account)}: no score of it was stored at or before the moment that the verdict speaks "
                "of, only later ones. Name a later moment, or none for the newest; --anyway records the verdict all "
                "the same, and it then teaches the models nothing",
                "not scored by then",
            )
    return refused


def _verdict(judgement: Judgement, row: JudgedRow | None, now_us: int, unread: str) -> Verdict:
    return Verdict(
        verdict_id=judgement.verdict_id or uuid.uuid4().hex,
        account_id=judgement.account_id,
        decision=judgement.decision,
        why=judgement.why,
        given_by=judgement.given_by,
        given_at_us=now_us,
        source=judgement.source,
        about_us=judgement.about_us,
        alert_id=judgement.alert_id,
        row=row,
        unread=unread,
    )
