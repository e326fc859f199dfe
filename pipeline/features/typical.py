"""Typical use of a plan, as the partition's own accounts show it: the 95th percentile of their tokens of a day.

What the operator names for a plan goes first (`Accounts`, plan_tokens); this is for plans that nobody named.  It
follows what customers do, so that a harvest that is a twentieth of a plan's accounts becomes typical of it.

Law: renewed after each `EVERY`-th record of the partition, and from what the accounts are at that record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pipeline.accounts import Accounts
from pipeline.features.clock import DAY, HOUR
from pipeline.features.fields import Layout, View
from pipeline.features.state import AccountColumns

EVERY: Final = 1 << 14
"""Records of the partition from one renewal to the next."""

ACCOUNTS_MIN: Final = 20
"""Accounts of a plan from which a 95th percentile is one."""

ACCOUNTS_MAX: Final = 4096
"""Accounts that are looked at: those with the smallest hashes, which is as good as by lot."""

_TOKENS: Final = "output_tokens"
_PERCENT: Final = 95


Tokens = Mapping[str, int]
"""By plan."""


class Typical:
    """Output tokens of a day that are typical of each plan; plans that have had too few accounts have none."""

    def __init__(self) -> None:
        self.tokens: Tokens = {}
        """Tokens a day by plan, of plans that had enough accounts; never changed, but replaced by others."""

    def renew(self, layout: Layout, accounts: AccountColumns, feed: Accounts, late: int) -> None:
        """Look at the accounts that sent something in the last day.

        Args:
            layout: of the fields.
            accounts: of the partition.
            feed: knows their plans.
            late: the partition's time, milliseconds since the epoch.
        """
        if _TOKENS not in layout.fields:
            return
        columns = accounts.columns
        clock = columns["clock"][: accounts.rows_used]
        rows = np.flatnonzero((clock > late - DAY) & (clock < late + 2 * HOUR))
        rows = rows[np.argsort(columns["key"][rows], kind="stable")[:ACCOUNTS_MAX]]
        lines = columns[View.DAY.name]
        merged = layout.merge_lines(lines[2 * rows], lines[2 * rows + 1], View.DAY)
        tokens = layout.part(merged, View.DAY, _TOKENS)[:, 0]
        some = np.flatnonzero(tokens > 0)
        own = tokens[some]
        plans = feed.plan_numbers(accounts.ids_of(rows[some]))
        shown = {}
        numbers, counts = np.unique(plans, return_counts=True)
        for number in numbers[counts >= ACCOUNTS_MIN].tolist():
            plan, found = feed.plan_names[number], np.sort(own[plans == number])
            if plan is not None:
                shown[plan] = int(found[-(-_PERCENT * len(found) // 100) - 1])
        self.tokens = {**self.tokens, **shown}

    def scalars(self) -> dict[str, Any]:
        """All of it as plain values."""
        return dict(sorted(self.tokens.items()))

    def restore(self, scalars: dict[str, Any]) -> None:
        """Take the place of what `scalars` was made of."""
        self.tokens = dict(scalars)
