"""The accounts feed: what the sign-up system knows of each account.

Optional: without it, whatever needs it is null.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from pipeline.errors import ConfigError
from pipeline.events import ACCOUNT_FIELDS, TIME

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

FREE_EMAIL_DOMAINS: Final = frozenset(
    [
        "126.com", "139.com", "163.com", "aol.com", "bk.ru", "daum.net", "fastmail.com", "foxmail.com",
        "free.fr", "gmail.com", "gmx.at", "gmx.com", "gmx.de", "gmx.net", "googlemail.com", "hotmail.co.uk",
        "hotmail.com", "hotmail.fr", "icloud.com", "inbox.ru", "laposte.net", "libero.it", "list.ru",
        "live.com", "mac.com", "mail.com", "mail.ru", "me.com", "msn.com", "naver.com", "orange.fr",
        "outlook.com", "pm.me", "proton.me", "protonmail.com", "qq.com", "rambler.ru", "sina.com",
        "t-online.de", "tutanota.com", "uol.com.br", "web.de", "ya.ru", "yahoo.co.in", "yahoo.co.jp",
        "yahoo.co.uk", "yahoo.com", "yahoo.de", "yahoo.fr", "yandex.com", "yandex.ru", "yeah.net", "zoho.com",
    ]
)  # fmt: skip
"""Anybody gets an address there, so that sharing one of them says nothing."""

_KINDS: Final[dict[str, type]] = {f.name: bool if str(f.arrow) == "bool" else str for f in ACCOUNT_FIELDS}
_TIMES: Final = frozenset(f.name for f in ACCOUNT_FIELDS if f.arrow == TIME)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the feed says of n accounts.

    Attributes:
        created: float64[n], when the account was made, milliseconds since the epoch; NaN where not known, as below.
        plan_share: float64[n], share of the feed's accounts (those with a plan) that are on its plan.
        plan_tokens: float64[n], output tokens a day that are typical of its plan.
        payment_accounts: float64[n], accounts in the feed with its payment fingerprint, itself among them.
        domain_accounts: float64[n], accounts with its e-mail domain; NaN for domains where anybody gets an address.
        org_accounts: float64[n], accounts of its organisation.
        verified: float64[n], 1 or 0.
        country: n sign-up countries; None where not known.
    """

    created: Floats
    plan_share: Floats
    plan_tokens: Floats
    payment_accounts: Floats
    domain_accounts: Floats
    org_accounts: Floats
    verified: Floats
    country: list[str | None]


class Accounts:
    """All accounts of a feed.

    Args:
        records: one mapping an account, checked; of two with the same `account_id` the later counts.
        plan_tokens: output tokens a day that are typical of a plan, by its name; of other plans, what their accounts
            show (`pipeline.features.typical`).
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], plan_tokens: Mapping[str, float] | None = None) -> None:
        latest: dict[str, Mapping[str, Any]] = {record["account_id"]: record for record in records}
        self._at = {name: position for position, name in enumerate(latest)}
        rows = list(latest.values())
        typical = plan_tokens or {}
        plans = [row.get("plan") for row in rows]
        planned = sum(plan is not None for plan in plans)
        domains = [(row.get("email_domain") or "").lower() or None for row in rows]
        columns: dict[str, list[Any]] = {
            "created": [_milliseconds(row.get("created_at")) for row in rows],
            "plan_share": [None if n is None else n / planned for n in _sharers(plans)],
            "plan_tokens": [typical.get(plan) if plan is not None else None for plan in plans],
            "payment_accounts": _sharers([row.get("payment_fingerprint") for row in rows]),
            "domain_accounts": _sharers([None if domain in FREE_EMAIL_DOMAINS else domain for domain in domains]),
            "org_accounts": _sharers([row.get("org_id") for row in rows]),
            "verified": [row.get("verified") for row in rows],
        }
        # One row more, of nothing known, for accounts that the feed does not have.
        self._values = {name: np.array([*column, None], np.float64) for name, column in columns.items()}
        self.plan_names: list[str | None] = [None, *sorted({plan for plan in plans if plan is not None})]
        """The plans of the feed; first of all, none."""
        self._plan_number = {name: position for position, name in enumerate(self.plan_names)}
        self._plan = np.array([self._plan_number[plan] for plan in [*plans, None]], np.int64)
        orgs = {org: org for row in rows if (org := row.get("org_id")) is not None}  # each name is held once
        self._org: list[str | None] = [*(orgs.get(row.get("org_id") or "") for row in rows), None]
        self._country: list[str | None] = [*(row.get("country") for row in rows), None]

    def __len__(self) -> int:
        return len(self._at)

    def facts(self, ids: Iterable[str]) -> Facts:
        """What is known of accounts; nothing of those that the feed does not have."""
        at = self._places(ids)
        columns = {name: column[at] for name, column in self._values.items()}
        return Facts(**columns, country=[self._country[position] for position in at.tolist()])

    def org_of(self, account_id: str) -> str | None:
        """An account's organisation; None where it is not known."""
        return self._org[self._at.get(account_id, -1)]

    def plan_numbers(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """The plan of each account, by its place in `plan_names`; 0 where it is not known."""
        return self._plan[self._places(ids)]

    def by_plan(self, numbers: Mapping[str, float]) -> Floats:
        """Numbers by the name of a plan as numbers by its place in `plan_names`; NaN where there is none."""
        found = np.full(len(self.plan_names), np.nan)
        for name, number in numbers.items():
            if name in self._plan_number:
                found[self._plan_number[name]] = number
        return found

    def _places(self, ids: Iterable[str]) -> npt.NDArray[np.int64]:
        return np.array(list(map(self._at.get, ids, itertools.repeat(-1))), np.int64)

    @classmethod
    def of_lines(cls, lines: Iterable[bytes], source: str, plan_tokens: Mapping[str, float] | None = None) -> Accounts:
        """Read a feed of one JSON object a line.

        Args:
            lines: of `schemas/accounts.v1.json`; empty ones are passed over.
            source: what to call it in an error.
            plan_tokens: see the class.

        Raises:
            ConfigError: a line is not such an object: which, and what is wrong with it.
        """
        numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        return cls((_record(line, f"{source}, line {number}") for number, line in numbered), plan_tokens)

    @classmethod
    def load(cls, path: Path, plan_tokens: Mapping[str, float] | None = None) -> Accounts:
        """Read a feed from a file of one JSON object a line.

        Raises:
            ConfigError: the file cannot be read, or a line of it is wrong.
        """
        try:
            with path.open("rb") as lines:
                return cls.of_lines(lines, str(path), plan_tokens)
        except OSError as error:
            raise ConfigError(f"cannot read the accounts feed {path}: {error.strerror}") from error


def _record(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{where}: not a JSON object")
    for field in ACCOUNT_FIELDS:
        value = record.get(field.name)
        if value is None:
            if field.required:
                raise ConfigError(f"{where}: no {field.name}")
        elif not isinstance(value, _KINDS[field.name]):
            wanted = "true or false" if _KINDS[field.name] is bool else "a text"
            raise ConfigError(f"{where}: {field.name} is not {wanted}")
        elif len(str(value)) < field.length_min:
            raise ConfigError(f"{where}: {field.name} is empty")
        elif field.name in _TIMES and _milliseconds(str(value)) is None:
            raise ConfigError(f"{where}: {field.name} is not a time with a zone (RFC 3339)")
    # Only what is used: a feed of millions need not be held twice.
    return {field.name: record.get(field.name) for field in ACCOUNT_FIELDS}


def _milliseconds(text: str | None) -> int | None:
    """Milliseconds since the epoch; None where there is no time, or none with a zone."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else int(time.timestamp() * 1000)


def _sharers(values: list[str | None]) -> list[int | None]:
    """How many have each value; None where it is not known."""
    counts = Counter(value for value in values if value is not None)
    return [None if value is None else counts[value] for value in values]
