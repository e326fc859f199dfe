"""Made-up rows of features: honest accounts and harvesters that differ in some columns, with unknown values between."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.features.rows import FeatureRows
from pipeline.scoring.boosted_trees import Boosting
from pipeline.scoring.combination import PARTS
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.kinds import EARLY, GROWN
from pipeline.scoring.labelled import LabelledRows
from pipeline.scoring.models import Models
from pipeline.scoring.mondrian_forest import ForestSettings
from pipeline.scoring.scores import Scores
from pipeline.scoring.training import TrainingSettings, train

NAMES = ("single_turn", "length", "constant", "unseen", "noise", "spread", "day_share", "grading")
HASH = "0123456789abcdef" * 4
FAMILIES = ("alpha", "beta", "gamma")
SETTINGS = TrainingSettings(
    rows_max=500, folds=3, parts=PARTS, forest=ForestSettings(n_estimators=5), boosting=Boosting(forests=1, rounds=10)
)
DAY_US = 86_400_000_000


def labelled(accounts: int = 120, seed: int = 0) -> LabelledRows:
    """Three rows an account; a third of the accounts harvest."""
    random = np.random.default_rng(seed)
    rows = accounts * 3
    of_row = np.repeat(np.arange(accounts), 3)
    harvesting = of_row % 3 == 0
    values = values_like(random, harvesting)
    family = np.array([FAMILIES[account // 3 % 3] for account in of_row])
    variant = np.where(of_row % 2 == 0, "loud", "hydra")
    return LabelledRows(
        values,
        np.array([f"account-{account:04}" for account in of_row]),
        np.tile([8, 16, 64], accounts),
        np.tile([EARLY, EARLY, GROWN], accounts),
        harvesting,
        np.where(harvesting, "", np.where(of_row % 2 == 0, "people", "chat_app")),
        np.where(harvesting, family, ""),
        np.where(harvesting, variant, ""),
        np.full(rows, "made-up"),
    )


def values_like(random: np.random.Generator, harvesting: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Feature values float32[n, 8]; harvesters have more of the first, less of the second, and some of each are NaN."""
    values = random.normal(size=(len(harvesting), len(NAMES)))
    values[:, 0] += 2.0 * harvesting
    values[:, 1] = np.exp(values[:, 1] * 3 - 2.0 * harvesting)
    values[:, 2] = 7.0
    values[:, 3] = np.nan
    values[:, 6] = np.round(np.clip(values[:, 6], 0, 1), 1)
    values[random.random(values.shape) < 0.05] = np.nan
    return values.astype(np.float32)


@cache
def models() -> Models:
    """Small models, trained once."""
    return train(labelled(), NAMES, HASH, SETTINGS)


def feature_rows(count: int, seed: int = 1, accounts: int = 200) -> FeatureRows:
    """Rows as the stream gives them; a tenth of them cold."""
    random = np.random.default_rng(seed)
    account = random.integers(0, accounts, count)
    exchanges = np.where(random.random(count) < 0.1, 3, 8 + random.integers(0, 100, count))
    return FeatureRows(
        offset=np.arange(count),
        kind=random.integers(0, 2, count).astype(np.uint8),
        account_id=[f"account-{number}" for number in account],
        key=account.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15),
        scored_at=np.sort(random.integers(0, 20 * DAY_US, count)),
        first_seen=np.zeros(count, dtype=np.int64),
        exchanges=exchanges,
        output_tokens=exchanges * 100,
        values=values_like(random, account % 5 == 0),
    )


def run(ensemble: Ensemble, rows: FeatureRows) -> Scores:
    """Score and learn rows as the job does: piece by piece, without those that look suspect."""
    parts = [Scores.unknown(0, ensemble.models.versions)]
    for piece, scores in ensemble.scored(rows):
        ensemble.learn(piece, scores, ~(scores.risk >= 0.3))
        parts.append(scores)
    return Scores.concat(parts)


def score(ensemble: Ensemble, rows: FeatureRows) -> Scores:
    """Scores of rows that fit in the block, with nothing learned."""
    ((_, scores),) = ensemble.scored(rows)
    return scores


def same_scores(one: Scores, other: Scores) -> bool:
    """Whether two lots of scores agree in every bit."""
    pairs = [(one.risk, other.risk), (one.top, other.top), (one.contribution, other.contribution)]
    pairs += [(one.parts[name], other.parts[name]) for name in one.parts]
    return all(left.tobytes() == right.tobytes() for left, right in pairs)


def same_tables(one: dict[str, pa.Table], other: dict[str, pa.Table]) -> bool:
    """Whether two snapshots hold the same; NaN equals NaN."""
    return one.keys() == other.keys() and all(as_bytes(one[name]) == as_bytes(other[name]) for name in one)


def as_bytes(table: pa.Table) -> bytes:
    """A table as Arrow writes it to a stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()
