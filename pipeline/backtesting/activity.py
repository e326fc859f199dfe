"""Who was in the log, when, and how much: counted while the events go by, whatever is scored of them."""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa

_PENDING_ROWS_MAX: Final = 200_000
"""Rows of unmerged counts; memory is that of the accounts and hours, and of so many rows."""

_TAIL_SHARE: Final = 0.001
"""Events at either end of the log that do not decide how long it is: a single one may be dated years away."""

_HOUR_US: Final = 3_600_000_000


class Activity:
    """Counts of events by account and by hour of event time."""

    def __init__(self) -> None:
        self._accounts: list[pl.DataFrame] = []
        self._hours: list[pl.DataFrame] = []
        self._pending = 0
        self.events = 0

    def add(self, events: pa.Table) -> None:
        """Count events; `account_id`, `event_time` and `output_tokens` of `pipeline.events.DECODED_SCHEMA`."""
        rows: pl.DataFrame = pl.from_arrow(  # type: ignore[assignment]  # a table gives a frame
            pa.table(
                {
                    "account_id": events["account_id"],
                    "time": events["event_time"],
                    "output_tokens": events["output_tokens"],
                }
            )
        )
        self.events += len(rows)
        self._accounts.append(
            rows.group_by("account_id").agg(
                pl.len().cast(pl.Int64).alias("events"),
                pl.col("output_tokens").sum().cast(pl.Int64),
                pl.col("time").min().alias("first_event"),
                pl.col("time").max().alias("last_event"),
            )
        )
        hour = (pl.col("time").dt.epoch("us") // _HOUR_US).alias("hour")
        self._hours.append(rows.group_by(hour).agg(pl.len().cast(pl.Int64).alias("events")))
        self._pending += len(self._accounts[-1]) + len(self._hours[-1])
        if self._pending > _PENDING_ROWS_MAX:
            self._accounts, self._hours, self._pending = [self.accounts()], [self.hours()], 0

    def accounts(self) -> pl.DataFrame:
        """One row an account, by its id: `events`, `output_tokens` Int64, `first_event`, `last_event` Datetime."""
        if not self._accounts:
            time = pl.Datetime("us", "UTC")
            return pl.DataFrame(
                schema={
                    "account_id": pl.String, "events": pl.Int64, "output_tokens": pl.Int64,
                    "first_event": time, "last_event": time,
                }
            )  # fmt: skip
        return (
            pl.concat(self._accounts)
            .group_by("account_id")
            .agg(
                pl.col("events", "output_tokens").sum(), pl.col("first_event").min(), pl.col("last_event").max()
            )
            .sort("account_id")
        )  # fmt: skip

    def hours(self) -> pl.DataFrame:
        """One row an hour that has events, in order: `hour` Int64, hours since the epoch, and `events` Int64."""
        if not self._hours:
            return pl.DataFrame(schema={"hour": pl.Int64, "events": pl.Int64})
        return pl.concat(self._hours).group_by("hour").agg(pl.col("events").sum()).sort("hour")


def span(hours: pl.DataFrame) -> tuple[int, int] | None:
    """First and last hour of a log, leaving out a thousandth of its events at either end; None without events.

    Args:
        hours: as `Activity.hours` gives it.
    """
    if not len(hours):
        return None
    before = hours["events"].cum_sum()
    cut = _TAIL_SHARE * float(before[-1])
    first = hours.filter(before > cut)["hour"][0]
    after = before - hours["events"]
    last = hours.filter(after < before[-1] - cut)["hour"][-1]
    return int(first), int(last)
