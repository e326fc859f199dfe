"""What the accounts feed says of one account, and who shares it; read line by line, so that its size is no matter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import orjson

from pipeline.accounts import FREE_EMAIL_DOMAINS
from pipeline.dossier import Shared, SignUp
from pipeline.dossier.dossier import SharedKind
from pipeline.errors import ConfigError
from pipeline.io.dossier.neighbours import EXAMPLES
from pipeline.moments import micros_of

Record = Mapping[str, Any]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.@:-]+")
"""Texts that every writer of JSON writes as they are, so that lines without them need not be parsed."""

_KINDS: Final[Mapping[SharedKind, str]] = {
    "payment": "payment_fingerprint", "email domain": "email_domain", "organisation": "org_id"
}  # fmt: skip


def read_sign_up(path: Path, account_id: str) -> tuple[SignUp | None, list[Shared], list[SharedKind]]:
    """What the feed says.

    Args:
        path: of the feed.
        account_id: whose.

    Returns:
        What it says of the account, None if it does not have it; what others have, too; and the kinds of things that it
        has and nobody else.

    Raises:
        ConfigError: the feed cannot be read.
    """
    mine: Record | None = None
    for record in _records(path, [account_id]):
        if record.get("account_id") == account_id:
            mine = record  # of two the later counts
    if mine is None:
        return None, [], []
    values = {kind: value for kind, name in _KINDS.items() if isinstance(value := mine.get(name), str) and value}
    if values.get("email domain", "").lower() in FREE_EMAIL_DOMAINS:
        del values["email domain"]  # anybody gets an address there
    others = _others(path, account_id, values)
    shared = [Shared(kind, values[kind], len(found), found[:EXAMPLES], 0) for kind, found in others.items() if found]
    return _sign_up(mine), shared, [kind for kind, found in others.items() if not found]


def _others(path: Path, account_id: str, values: Mapping[SharedKind, str]) -> dict[SharedKind, tuple[str, ...]]:
    """Accounts of which any line of the feed says the same, in the order of their ids, for each kind."""
    found: dict[SharedKind, dict[str, None]] = {kind: {} for kind in values}
    for record in _records(path, list(values.values())) if values else ():
        other = record.get("account_id")
        for kind, value in values.items():
            said = record.get(_KINDS[kind])
            same = said == value if kind != "email domain" else str(said or "").lower() == value.lower()
            if same and other != account_id and isinstance(other, str):
                found[kind][other] = None
    return {kind: tuple(sorted(others)) for kind, others in found.items()}


def _records(path: Path, holding: list[str]) -> Iterator[Record]:
    """Lines that hold one of some texts; those that are no JSON objects are the job's to complain of."""
    plain = all(_PLAIN.fullmatch(text) for text in holding)
    needle = re.compile("|".join(map(re.escape, holding)).encode(), re.IGNORECASE) if plain else re.compile(b"")
    try:
        with path.open("rb") as lines:
            for line in lines:
                if needle.search(line):
                    try:
                        record = orjson.loads(line)
                    except orjson.JSONDecodeError:
                        continue
                    if isinstance(record, dict):
                        yield record
    except OSError as error:
        raise ConfigError(f"cannot read the accounts feed {path}: {error.strerror}") from error


def _sign_up(record: Record) -> SignUp:
    names = [name for name in SignUp.__slots__ if name != "created_at_us"]
    return SignUp(created_at_us=_microseconds(record.get("created_at")), **{name: record.get(name) for name in names})


def _microseconds(text: Any) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return None if moment.tzinfo is None else micros_of(moment)
