"""Feature rows and scores as tests want them, without the stages that make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

FEATURES = ("one_shot_share", "frame_share", "rate_1h")
US_PER_HOUR = 3_600_000_000
START_US = 1_772_500_000_000_000
TOP = 2


@dataclass(frozen=True, slots=True)
class Described:
    name: str
    words: str


DESCRIBED = tuple(Described(name, f"the {name.replace('_', ' ')}") for name in FEATURES)


@dataclass(frozen=True, slots=True)
class Reason:
    words: str


class Explainer:
    """Says which features were named to it."""

    def reasons(
        self, values: npt.NDArray[np.float32], top: npt.NDArray[np.int16], contribution: npt.NDArray[np.float32]
    ) -> list[Reason]:
        pairs = zip(top.tolist(), contribution.tolist(), strict=True)
        return [
            Reason(f"{FEATURES[feature]} {values[feature]:.2f} adds {share:.2f}")
            for feature, share in pairs
            if feature >= 0
        ]


@dataclass(frozen=True, slots=True)
class Rows:
    """n rows, and the scores of the same."""

    offset: npt.NDArray[np.int64]
    account_id: list[str]
    key: npt.NDArray[np.uint64]
    scored_at: npt.NDArray[np.int64]
    first_seen: npt.NDArray[np.int64]
    exchanges: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    risk: npt.NDArray[np.float32]
    top: npt.NDArray[np.int16]
    contribution: npt.NDArray[np.float32]
    precedents: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def versions(self) -> Mapping[str, str]:
        return {"features": "f1", "models": "m1"}

    def slice(self, start: int, stop: int) -> Rows:
        return Rows(*(getattr(self, field.name)[start:stop] for field in fields(self)))


def row(
    account: str, hours: float, risk: float = float("nan"), exchanges: int = 64, **features: float
) -> dict[str, Any]:
    """One row of an account at a time of its clock."""
    values = [features.get(name, float("nan")) for name in FEATURES]
    return {"account": account, "hours": hours, "risk": risk, "exchanges": exchanges, "values": values}


def rows_of(rows: Sequence[Mapping[str, Any]], first_offset: int = 100) -> Rows:
    """Rows one after the other; accounts' keys are made from their ids."""
    n = len(rows)
    accounts = [str(one["account"]) for one in rows]
    return Rows(
        offset=np.arange(first_offset, first_offset + n, dtype=np.int64),
        account_id=accounts,
        key=np.array(
            [int.from_bytes(account.encode()[:8].ljust(8, b"\xff"), "big") for account in accounts], np.uint64
        ),
        scored_at=np.array([START_US + round(one["hours"] * US_PER_HOUR) for one in rows], np.int64),
        first_seen=np.full(n, START_US - US_PER_HOUR, np.int64),
        exchanges=np.array([one["exchanges"] for one in rows], np.int64),
        output_tokens=np.array([one["exchanges"] * 500 for one in rows], np.int64),
        values=np.array([one["values"] for one in rows], np.float32).reshape(n, len(FEATURES)),
        risk=np.array([one["risk"] for one in rows], np.float32),
        top=np.tile(np.array([2, -1], np.int16), (n, 1)),
        contribution=np.tile(np.array([0.75, 0.0], np.float32), (n, 1)),
        precedents=np.array([one.get("precedents", 0.0) for one in rows], np.float32),
    )
