"""Judgements as files (CSV) and topics (JSON) bring them.

Pure: text in, judgements and what is wrong with them out.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from pipeline.batch import Partition
from pipeline.decisions import Decision
from pipeline.errors import ConfigError
from pipeline.judging import Judgement, shown, verdict_id_of
from pipeline.moments import micros_of, parsed

REQUIRED: Final = ("account_id", "decision", "why")
OPTIONAL: Final = ("by", "at", "alert_id")
COLUMNS: Final = (*REQUIRED, *OPTIONAL)
FIELDS: Final = (*COLUMNS, "verdict_id")
"""Of a record of a topic; `by` is required there."""

LINES_MAX: Final = 100_000
"""Of one file: all of it goes into one transaction."""

_CELL_CHARS_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file.

    Attributes:
        number: of its first line of text, from 1 on.
        judgement: what it says; None where it cannot be read.
        wrong: why not; empty: it can.
    """

    number: int
    judgement: Judgement | None
    wrong: str = ""


def read_csv(lines: Iterable[str], source: str, by: str) -> list[Line]:
    """Read a file of verdicts, its first line the names of its columns.

    Args:
        lines: of text, with their line ends.
        source: of the judgements, as `csv:NAME`.
        by: who decides where a line does not say.

    Raises:
        ConfigError: the first line names no columns, or the wrong ones, or there are too many lines.
    """
    csv.field_size_limit(_CELL_CHARS_MAX)
    reader = csv.reader(lines, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ConfigError(f"line 1: {error}") from None
    _check_columns(names)
    return list(_lines(reader, names, source, by))


def _check_columns(names: list[str]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in REQUIRED if name not in names]
    expected = f"expected {','.join(REQUIRED)} and, if wanted, {', '.join(OPTIONAL)}, with commas between"
    if missing:
        raise ConfigError(f"line 1 is to name the columns, and has no {', '.join(missing)}: {expected}")
    if unknown:
        raise ConfigError(f"line 1: unknown column {shown(unknown[0])}: {expected}")
    if len(set(names)) < len(names):
        raise ConfigError("line 1: a column is named twice")


def _lines(reader: Any, names: list[str], source: str, by: str) -> Iterator[Line]:
    seen: dict[str, int] = {}
    count = 0
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield Line(number, None, str(error))
            return
        if cells is None:
            return
        if not cells:
            continue
        count += 1
        if count > LINES_MAX:
            raise ConfigError(f"more than {LINES_MAX:,} verdicts: give them in several files")
        yield _line(number, cells, names, (source, by), seen)


def _line(number: int, cells: list[str], names: list[str], said: tuple[str, str], seen: dict[str, int]) -> Line:
    source, by = said
    if len(cells) != len(names):
        return Line(number, None, f"{len(cells)} cells, and {len(names)} columns: are there commas without quotes?")
    row = dict(zip(names, cells, strict=True))
    try:
        judgement = _judgement(row, source, row.get("by", "").strip() or by)
    except ConfigError as error:
        return Line(number, None, str(error))
    account_id = row["account_id"]  # may differ from another by spaces alone
    content = verdict_id_of(account_id, *(row.get(name, "").strip() for name in COLUMNS if name != "account_id"))
    seen[content] = seen.get(content, 0) + 1  # said twice in one file it is two verdicts, and in two files one
    verdict_id = verdict_id_of(content, str(seen[content]))
    return Line(number, Judgement(**{**_fields(judgement), "verdict_id": verdict_id}))


def _fields(judgement: Judgement) -> dict[str, Any]:
    return {name: getattr(judgement, name) for name in Judgement.__slots__}


def _judgement(row: Mapping[str, str], source: str, by: str) -> Judgement:
    """What a row says, with no more than its own words looked at."""
    at = (row.get("at") or "").strip()
    return Judgement(
        account_id=row["account_id"],
        decision=cast(Decision, row["decision"].strip().lower()),  # checked with all else, by `judging.check`
        why=row["why"].strip(),
        given_by=by,
        source=source,
        about_us=_time_us(at) if at else None,
        alert_id=(row.get("alert_id") or "").strip(),
        verdict_id=(row.get("verdict_id") or "").strip(),
    )


def _time_us(said: str) -> int:
    try:
        return micros_of(parsed(said))
    except ValueError:
        raise ConfigError(f"at {shown(said)}: expected a day (2026-03-01) or a time (2026-03-01T12:00Z)") from None


def read_record(value: bytes | None, where: Partition, offset: int, topic_id: str = "") -> Judgement:
    """Read a record of a topic of verdicts: one JSON object.

    Args:
        value: of the record.
        where: its partition.
        offset: its offset; with the topic's id it names the verdict where `verdict_id` does not.
        topic_id: Kafka's id of the topic; empty: not known.

    Raises:
        ConfigError: it is none; the message holds nothing of what it says.
    """
    try:
        said = orjson.loads(value or b"")
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error.msg}") from None
    if not isinstance(said, dict):
        raise ConfigError("not a JSON object")
    unknown = said.keys() - set(FIELDS)
    if unknown:
        raise ConfigError(f"unknown field {shown(min(unknown))}: known are {', '.join(FIELDS)}")
    row = {name: text for name, text in said.items() if text is not None}
    wrong = [name for name, text in row.items() if not isinstance(text, str)]
    missing = [name for name in (*REQUIRED, "by") if name not in row]
    if wrong or missing:
        raise ConfigError(f"{wrong[0]} is not a text" if wrong else f"no {missing[0]}")
    judgement = _judgement(row, f"kafka:{where.topic}", row["by"].strip())
    if judgement.verdict_id:
        return judgement
    verdict_id = verdict_id_of("kafka", where.topic, topic_id, str(where.number), str(offset))
    return Judgement(**{**_fields(judgement), "verdict_id": verdict_id})


def account_in(value: bytes | None) -> str:
    """The account that a record names, if it can be read so far; empty: it cannot."""
    try:
        said = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return ""
    account = said.get("account_id") if isinstance(said, dict) else None
    return account if isinstance(account, str) else ""
