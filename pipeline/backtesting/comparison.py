"""Two runs side by side: what changed between an earlier one and this one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import polars as pl

Json = dict[str, Any]

MOVED_MAX: Final = 30
ALERTS_MAX: Final = 200
"""How many accounts and alerts are listed; all are counted."""

_SECTIONS: Final = ("log", "scores", "alerts", "rules", "detection")
_NOT_COMPARED: Final = frozenset({"histogram", "histograms", "by_day"})
_OF_A_SHARE: Final = frozenset({"count", "of", "low", "high"})
"""What goes with a share: it alone is compared."""

_NAMED_BY: Final = {"by_rule": "rule", "rules": "rule", "thresholds": "benign_share"}
"""What tells the items of a list apart."""

_SAID_BY_RULE: Final = frozenset({"rule_version", "alerts", "accounts"})
"""What `rules` says and `alerts / by_rule` has said already."""


def compared(
    before: Json, after: Json, accounts: tuple[pl.DataFrame, pl.DataFrame], alerts: tuple[pl.DataFrame, pl.DataFrame]
) -> Json:
    """Compare two runs.

    Args:
        before: report of the earlier run.
        after: report of this run.
        accounts: `accounts.parquet` of both, the earlier first.
        alerts: `alerts.parquet` of both.

    Returns:
        `figures`: each that differs or is in one alone, with `before`, `after` and `change`; `same_log`: whether both
        saw as many events of as many accounts in the same hours; `only_before`, `only_after`: alerts by rule and entity
        that one has alone, counted and listed; `moved`: accounts by how far their risk moved.
    """
    first, second = (dict(_numbers({name: report.get(name) for name in _SECTIONS})) for report in (before, after))
    return {
        "same_log": before.get("log") == after.get("log"),
        "figures": [
            {
                "figure": name,
                "before": first.get(name),
                "after": second.get(name),
                "change": _change(first, second, name),
            }
            for name in sorted(first.keys() | second.keys())
            if first.get(name) != second.get(name)
        ],
        "unchanged": sum(name in second and first[name] == second[name] for name in first),
        "only_before": _only(alerts[0], alerts[1]),
        "only_after": _only(alerts[1], alerts[0]),
        **_moved(*accounts),
    }


def _numbers(value: object, path: str = "") -> Iterator[tuple[str, float | None]]:
    """Every number of a report, by its path."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in _NOT_COMPARED and not ("share" in value and key in _OF_A_SHARE):
                yield from _numbers(part, f"{path} / {key}" if path else str(key))
    elif isinstance(value, list):
        key = _NAMED_BY.get(path.rpartition(" / ")[2])
        for part in value if key else []:
            said = {key, *(_SAID_BY_RULE if path == "rules" else ())}
            rest = {name: number for name, number in part.items() if name not in said}
            name = f"{part[key]} ({part['state']})" if "state" in part else part[key]
            yield from _numbers(rest, f"{path} / {name}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def _change(first: dict[str, float | None], second: dict[str, float | None], name: str) -> float | None:
    before, after = first.get(name), second.get(name)
    return None if before is None or after is None else after - before


def _only(these: pl.DataFrame, others: pl.DataFrame) -> Json:
    """Alerts whose rule and entity the others lack; whatever the versions, and so the ids, are."""
    keys = ["rule", "entity_type", "entity_id"]
    alone = (
        these.join(others, on=keys, how="anti")
        .group_by([*keys, "state"])
        .agg(pl.len().alias("alerts"), pl.col("raised_at").min(), pl.col("events_before").min(), pl.col("risk").max())
        .sort("rule", "raised_at", "entity_id")
    )
    listed = alone.head(ALERTS_MAX).with_columns(pl.col("raised_at").dt.to_string("iso:strict"))
    return {"count": len(alone), "alerts": listed.to_dicts()}


def _moved(before: pl.DataFrame, after: pl.DataFrame) -> Json:
    """Accounts by the change of their risk; never scored counts as 0."""
    columns = ["account_id", "risk"]
    both = before.select(columns).join(after.select(columns), on="account_id", how="inner", suffix="_after")
    change = pl.col("after") - pl.col("before")
    risks = both.select(
        "account_id",
        before=pl.col("risk").fill_null(0.0).cast(pl.Float64),
        after=pl.col("risk_after").fill_null(0.0).cast(pl.Float64),
    ).with_columns(change.alias("change"))
    moved = risks.filter(pl.col("change") != 0).sort(pl.col("change").abs(), "account_id", descending=[True, False])
    return {
        "accounts_in_both": len(both),
        "accounts_moved": len(moved),
        "mean_change": float(risks["change"].abs().mean() or 0.0) if len(risks) else None,  # type: ignore[arg-type]  # a number
        "moved": moved.head(MOVED_MAX).to_dicts(),
    }
