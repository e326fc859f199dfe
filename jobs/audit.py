"""`stillwatch audit`: who did what and when."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Annotated, Any, Final

import typer

from jobs import listed, options
from jobs.catalogs import opened
from jobs.default_group import defaulting_to
from jobs.listed import say
from jobs.moments import since_us
from pipeline.config import read_settings
from pipeline.counted import counted
from pipeline.decisions import ACTIONS, AuditRecord
from pipeline.errors import ConfigError, LakeDamagedError
from pipeline.harmless import harmless
from pipeline.io.catalog import AlertFilter, Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.desk.audit_log import AuditFilter
from pipeline.io.desk.seals import UNSAID, Compared
from pipeline.io.desk.subjects import Subjects
from pipeline.reasons import time_in_words

CSV_COLUMNS: Final = (
    "seq", "at", "action", "actor", "worker", "subject_type", "subject", "subject_sha256", "details", "audit_id",
    "chain",
)  # fmt: skip
_HEAD: Final = ("seq", "at (UTC)", "action", "actor", "subject", "details")
_BELOW: Final = 2
"""Columns that go below the others where the terminal is narrow."""
_GIVE_WAY: Final = ((3, 16), (2, 20))
_NAMED_MAX: Final = 10
_SHORT_ID: Final = re.compile("[0-9a-fA-F]{4,31}")
_SECONDS: Final = len("2026-03-01 12:00:00")

app = typer.Typer(
    cls=defaulting_to("list", when_empty=True),
    help="Who did what and when: list the record, and check that nobody has changed it.",
    add_completion=False,
    rich_markup_mode=None,
)


@app.command(name="list")
def list_records(  # noqa: PLR0913, PLR0917  # one argument per flag is how Typer reads a command
    action: Annotated[
        str, typer.Option(metavar="ACTION", help="Only this one, as verdict.given, or all of a kind, as verdict.")
    ] = "",
    actor: Annotated[str, typer.Option(metavar="NAME", help="Only by this person or command.")] = "",
    subject: Annotated[
        str, typer.Option(metavar="ID", help="Only about this account, alert (enough of its id), rule or sink.")
    ] = "",
    since: Annotated[
        str, typer.Option(metavar="WHEN", help="Since then: 2026-03-01, 2026-03-01T12:00Z, 90m, 24h, 7d.")
    ] = "",
    limit: listed.LimitFlag = None,
    form: listed.FormFlag = "table",
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
) -> None:
    """List what was done, the latest first: verdicts, exceptions, claims, deliveries, looks at stored text, erasures.

    `stillwatch audit` alone does the same.  An account that was erased is not named any more; whoever knows its id
    still finds what was done about it with --subject.

    Exit codes: 0 done, also if there is nothing; 2 a wrong setting, or there is no catalog; 4 it does not answer.
    """
    limit = listed.limit_of(limit, form)
    began_us = since_us(since, SystemClock().now_us()) if since else None
    wanted = AuditFilter(action, actor, subject, began_us, limit + 1 if limit and form == "table" else limit or None)
    settings = read_settings(config, lake=lake, catalog=catalog)
    with opened(settings) as ledger:
        if subject:
            wanted = replace(wanted, subject=_whole(ledger, subject))
        if action and not ledger.desk.audit.records(replace(wanted, limit=1)):
            _check_action(action)
        found = ledger.desk.audit.walk(wanted)  # there may be more than memory holds
        say(
            listed.in_form(
                form, CSV_COLUMNS, map(_as_object, found), lambda width: _as_table(list(found), limit, width)
            )
        )


def _whole(ledger: Catalog, subject: str) -> str:
    """The id that is meant: of an alert enough of its beginning will do.

    Raises:
        ConfigError: several alerts' ids begin so.
    """
    if not _SHORT_ID.fullmatch(subject) or ledger.desk.audit.records(AuditFilter(subject=subject, limit=1)):
        return subject
    found = ledger.alerts(AlertFilter(id_prefix=subject.lower(), limit=_NAMED_MAX + 1))
    if len(found) > 1:
        ids = ", ".join(alert.alert_id for alert in found[:_NAMED_MAX])
        raise ConfigError(f"--subject {subject}: several alerts' ids begin so: {ids}; give more of it")
    return found[0].alert_id if found else subject


def _check_action(action: str) -> None:
    """See that an action is known, or is a kind of known ones.

    Raises:
        ConfigError: it is not.
    """
    if not any(known == action or known.startswith(f"{action}.") for known in ACTIONS):
        raise ConfigError(
            f"--action {action}: nothing of the kind is ever recorded. It is one of {', '.join(ACTIONS)}; or what "
            "comes before the dot, for all of a kind"
        )


@app.command()
def verify(
    lake: options.LakeFolder = None,
    catalog: options.CatalogUrl = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Check that no record is missing or changed, and that verdicts and exceptions stand as they were made.

    Each record is chained to the one before it by a hash, and that of a verdict or an exception has a hash of its
    content.  A decision that is gone and that no erasure accounts for is named, and so is one without a record, and
    a record that was made to be about another account, or about none.

    The last record's hash speaks for all of them: whoever keeps it elsewhere can tell later that none was changed, or
    cut off at the end.

    Exit codes: 0 the chain is whole; 2 a wrong setting, or there is no catalog; 4 it does not answer; 6 it is broken,
    or a verdict, an exception or whom a record is about was changed, removed, or put in behind the record's back.
    """
    settings = read_settings(config, lake=lake, catalog=catalog)
    with opened(settings) as ledger:
        broken = ledger.desk.audit.broken_at()
        compared, subjects = ledger.desk.audit.compared(), ledger.desk.audit.subjects()
        last = ledger.desk.audit.records(AuditFilter(limit=1))
    count, chain = (last[0].seq, last[0].chain) if last else (0, "")
    if as_json:
        said = {
            "ok": broken is None and compared.is_sound and subjects.is_sound, "records": count, "broken_at": broken,
            "chain": chain, "decisions": asdict(compared), "subjects": asdict(subjects),
        }  # fmt: skip
        say(json.dumps(said) + "\n")
    elif broken is None:
        say(
            f"{counted(count, 'record')}, none missing or changed\n"
            + (f"hash of the last one: {chain}\n" if chain else "")
        )
        say(_compared_in_words(compared) + _subjects_in_words(subjects))
    if broken is not None:
        raise LakeDamagedError(
            f"the audit log is broken at record {broken}: it, or what stood in its place, was changed or removed "
            "behind the program's back. All before it is as it was written; an older copy of the catalog tells the rest"
        )
    wrong = [words for words in (_named(names, what) for names, what in _wrong(compared, subjects)) if words]
    if wrong:
        raise LakeDamagedError(
            f"{'; '.join(wrong)}. It was done in the catalog behind the program's back. The copy in the lake's "
            "folder _desk/, what it has lost since (_desk/aside/), or an older copy of the catalog tells what was there"
        )


def _wrong(compared: Compared, subjects: Subjects) -> Iterator[tuple[list[str], str]]:
    yield compared.changed, "changed after being put on record"
    yield compared.removed, "on record, and not there any more, though no erasure accounts for it"
    yield compared.unrecorded, "there, and was never put on record"
    yield subjects.renamed, "now said to be about another one than when it was written"
    yield subjects.struck, "no longer says whom it is about, though no erasure accounts for it"


def _named(names: list[str], what: str) -> str:
    """Which decisions something is the matter with; empty: none."""
    if not names:
        return ""
    more = f" and {len(names) - _NAMED_MAX:,} more" if len(names) > _NAMED_MAX else ""
    return f"{harmless(', '.join(names[:_NAMED_MAX]))}{more}: {what}"


def _compared_in_words(compared: Compared) -> str:
    if not compared.is_sound:
        return ""
    said = counted(
        compared.sealed, "verdict or exception stands as it was made", "verdicts and exceptions stand as they were made"
    )
    if compared.unsealed:
        said += f"; of {compared.unsealed:,} more an older version recorded no hash, so nobody can tell"
    if compared.adopted:
        said += (
            f"; {compared.adopted:,} more came from a copy without a record, as that of the catalog's rebuild says, "
            "and stand as they came"
        )
    if compared.erased:
        said += f"; {compared.erased:,} went with accounts that were erased"
    if compared.unclear:
        said += (
            f"; {compared.unclear:,} are gone, and erasures by an older version, which did not record what went, "
            "may or may not account for them"
        )
    return f"{said}\n"


def _subjects_in_words(subjects: Subjects) -> str:
    if not subjects.unclear:
        return ""
    return (
        f"of {counted(subjects.unclear, 'id')} that records were about, and gone now, it cannot be told "
        "whether erasures took them: "
        "these records were hashed without a key\n"
    )


def _as_table(found: list[AuditRecord], limit: int, width: int | None) -> str:
    records = found[: limit or None]
    if not records:
        return "nothing is recorded\n"
    lines = listed.whole_table(_HEAD, [_row(record) for record in records], _BELOW, width, _GIVE_WAY)
    if any(len(record.subject or "") > listed.ACCOUNT_CHARS_MAX for record in records):
        lines.append(
            f"(of ids longer than {listed.ACCOUNT_CHARS_MAX} characters the beginning; --format json has them whole)"
        )
    count = counted(len(records), "record")
    lines.append(f"(the latest {count}; --limit 0 shows all)" if len(found) > len(records) else f"({count})")
    return "".join(f"{line}\n" for line in lines)


def _row(record: AuditRecord) -> tuple[str, ...]:
    said = (item for item in record.details.items() if item[0] not in UNSAID and item[1] not in ("", None))
    named = listed.shown_account(record.subject) or ("(erased)" if record.subject_sha256 else "")
    return (
        str(record.seq),
        time_in_words(record.at_us)[:_SECONDS],
        harmless(record.action),
        harmless(record.actor),
        f"{record.subject_type} {named}".strip(),
        harmless(", ".join(_detail(name, value) for name, value in said)),
    )


def _detail(name: str, value: Any) -> str:
    is_time = name.endswith("_us") and isinstance(value, int)
    return f"{name.removesuffix('_us')} {time_in_words(value)}" if is_time else f"{name} {value}"


def _as_object(record: AuditRecord) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "at": listed.rfc3339(record.at_us),
        "action": record.action,
        "actor": record.actor,
        "worker": record.worker,
        "subject_type": record.subject_type or None,
        "subject": record.subject or None,
        "subject_sha256": record.subject_sha256 or None,
        "details": dict(record.details),
        "audit_id": record.audit_id,
        "chain": record.chain,
    }
