"""Scored windows: the rows of the lake's table `account_windows`, features and scores as they were.

Pure: rows and scores in, a table out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.batch import Partition
from pipeline.events import LINEAGE, TIME
from pipeline.features import FEATURES, NAMES
from pipeline.features.rows import FeatureRows

PARTS: Final = ("zscore", "half_space_trees", "mondrian_forest", "logistic_regression", "extra_trees")
"""What a risk is combined of, each in a column of its own."""

KINDS: Final = ("tick", "count")
"""Why a row was emitted, by `FeatureRows.kind`."""

REASON: Final = pa.struct(
    [
        pa.field("feature", pa.string()),
        pa.field("value", pa.float32()),
        pa.field("contribution", pa.float32()),
        pa.field("words", pa.string()),
    ]
)

WINDOWS_SCHEMA: Final = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("scored_at", TIME, nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("exchanges", pa.int64(), nullable=False),
        pa.field("output_tokens", pa.int64(), nullable=False),
        pa.field("first_seen", TIME, nullable=False),
        pa.field("risk", pa.float32()),
        *(pa.field(part, pa.float32()) for part in PARTS),
        pa.field("reasons", pa.list_(REASON), nullable=False),
        pa.field("features", pa.struct([pa.field(name, pa.float32()) for name in NAMES]), nullable=False),
        pa.field("versions", pa.string(), nullable=False),
        *LINEAGE[:3],
    ]
)
"""One scored row: of an account, at a moment of its clock.  What could not be computed is null, never zero."""


class Scores(Protocol):
    """What the models say of n rows; `pipeline.scoring.scores.Scores`."""

    @property
    def risk(self) -> npt.NDArray[np.float32]:
        """float32[n], 0 to 1; NaN for unknown."""

    @property
    def parts(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """float32[n] for each of `PARTS`; NaN for unknown."""

    @property
    def top(self) -> npt.NDArray[np.int16]:
        """int16[n, k]: columns of the features that contributed most, the largest first; -1 for none."""

    @property
    def contribution(self) -> npt.NDArray[np.float32]:
        """float32[n, k]: what each of them adds to the log-odds of the risk."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Of what made the scores, by name."""


def windows_of(partition: Partition, rows: FeatureRows, scores: Sequence[Scores]) -> pa.Table:
    """Rows and what was said of them, as rows of `WINDOWS_SCHEMA`.

    Args:
        partition: where the records come from.
        rows: n rows.
        scores: of the same n rows, piece by piece.
    """
    if not scores:
        return WINDOWS_SCHEMA.empty_table()
    count = len(rows)
    features = [_known(column) for column in np.ascontiguousarray(rows.values.T)]
    columns = [
        pa.array(rows.account_id, pa.string()),
        pa.array(rows.scored_at).cast(TIME),
        pa.DictionaryArray.from_arrays(pa.array(rows.kind, pa.uint8()), list(KINDS)).cast(pa.string()),
        pa.array(rows.exchanges),
        pa.array(rows.output_tokens),
        pa.array(rows.first_seen).cast(TIME),
        _known(np.concatenate([piece.risk for piece in scores])),
        *(_known(np.concatenate([piece.parts[part] for piece in scores])) for part in PARTS),
        _reasons(
            rows.values,
            np.concatenate([piece.top for piece in scores]),
            np.concatenate([piece.contribution for piece in scores]),
        ),
        pa.StructArray.from_arrays(features, fields=list(WINDOWS_SCHEMA.field("features").type)),
        pa.concat_arrays([_repeated(_json_of(piece.versions), len(piece.risk)) for piece in scores]),
        _repeated(partition.topic, count),
        pa.repeat(pa.scalar(partition.number, pa.int32()), count),
        pa.array(rows.offset),
    ]
    return pa.table(columns, schema=WINDOWS_SCHEMA)


def _json_of(versions: Mapping[str, str]) -> str:
    return json.dumps(dict(versions), sort_keys=True, separators=(",", ":"))


def _repeated(text: str, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), count)


def joined(windows: Sequence[pa.Table]) -> pa.Table:
    """All rows, one table after the other."""
    return pa.concat_tables([WINDOWS_SCHEMA.empty_table(), *windows]).combine_chunks()


def _known(values: npt.NDArray[np.float32]) -> pa.Array:
    """Numbers with nulls for NaN."""
    return pa.array(np.ascontiguousarray(values, np.float32), mask=np.isnan(values))


def _reasons(
    values: npt.NDArray[np.float32], top: npt.NDArray[np.int16], contribution: npt.NDArray[np.float32]
) -> pa.Array:
    """Each row's features that contributed most, the largest first."""
    row, place = np.nonzero(top >= 0)
    column = top[row, place].astype(np.int64)
    ends = np.zeros(len(top) + 1, np.int32)
    np.cumsum((top >= 0).sum(axis=1), out=ends[1:])
    told = pa.StructArray.from_arrays(
        [
            pa.array(NAMES, pa.string()).take(pa.array(column)),
            _known(values[row, column]),
            pa.array(contribution[row, place].astype(np.float32)),
            pa.array([feature.words for feature in FEATURES], pa.string()).take(pa.array(column)),
        ],
        fields=list(REASON),
    )
    return pa.ListArray.from_arrays(pa.array(ends), told, type=WINDOWS_SCHEMA.field("reasons").type)
