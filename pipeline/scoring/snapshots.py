"""An ensemble as plain data and back: what is restored goes on bit for bit as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.drifts import Drift
from pipeline.errors import SchemaError
from pipeline.scoring.drift import DriftDetector
from pipeline.scoring.ensemble import Ensemble
from pipeline.scoring.half_space_trees import HalfSpaceTrees, TreeMasses
from pipeline.scoring.logistic_regression import LinearWeights, LogisticRegression
from pipeline.scoring.matrices import matrix_of, table_of
from pipeline.scoring.models import Models
from pipeline.scoring.mondrian_forest import LabelledValues, MondrianForest
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.precedents import Precedent, Precedents
from pipeline.scoring.scaling import KNOTS, Scaling
from pipeline.scoring.teachers import SLOTS, DailyTeachers
from pipeline.scoring.zscores import Population

FORMAT: Final = 2

_STATE: Final = "state"
_ALWAYS: Final = (_STATE, "population", "quantiles", "masses", "linear", "teachers", "pending", "pending_risks")
_AFTER_VERDICTS: Final = ("verdicts", "forest")
_PRECEDENTS: Final = "precedents"


def snapshot(ensemble: Ensemble) -> dict[str, pa.Table]:
    """The whole state of an ensemble but for the models that it started from; a few hundred kilobytes.

    Returns:
        Tables by name; "state" holds one JSON text, the others numbers.
    """
    masses, verdicts = ensemble.half_space_trees.masses, ensemble.mondrian_forest.verdicts
    state = {
        "format": FORMAT,
        "models": ensemble.models.version,
        "verdict_seq": ensemble.verdict_seq,
        "blocks": ensemble.blocks,
        "block_rows": ensemble.block_rows,
        "next_row": ensemble.population.next_row,
        "masses": {"learned": masses.learned, "is_cold": masses.is_cold},
        "linear_intercept": ensemble.logistic_regression.learned.intercept,
        "drifts": [asdict(drift) for drift in ensemble.drifts],
        "detectors": {d.signal: {"values": d.values, "count": d.count} for d in _detectors(ensemble)},
    }
    tables = {
        _STATE: pa.table({_STATE: [json.dumps(state, sort_keys=True)]}),
        "population": table_of(rows=ensemble.population.rows),
        "quantiles": table_of(knots=ensemble.population.scaling.knots),
        "masses": table_of(scored_with=masses.scored_with, learning=masses.learning),
        "linear": table_of(weights=ensemble.logistic_regression.learned.weights),
        "teachers": table_of(days=ensemble.teachers.days),
        "pending": table_of(values=np.concatenate(ensemble.pending)),
        "pending_risks": table_of(risk=np.concatenate(ensemble.pending_risks)),
    }
    if len(ensemble.precedents):
        tables[_PRECEDENTS] = _table_of_precedents(ensemble.precedents)
    if len(verdicts):
        tables["verdicts"] = table_of(values=verdicts.values, kind=verdicts.kind)
        tables["forest"] = ensemble.mondrian_forest.trees.to_table()
    return tables


def restore(models: Models, tables: Mapping[str, pa.Table]) -> Ensemble:
    """The ensemble that `snapshot` was taken of.

    Args:
        models: what it started from.
        tables: what `snapshot` gave.

    Raises:
        SchemaError: the tables are not such a snapshot, or it belongs to other models.
    """
    known = (*_ALWAYS, _PRECEDENTS, *(_AFTER_VERDICTS if _AFTER_VERDICTS[0] in tables else ()))
    unknown = tables.keys() - set(known)
    if unknown:
        raise SchemaError(f"a snapshot of the models has parts that nobody knows: {', '.join(sorted(unknown))}")
    try:
        state = json.loads(tables[_STATE][_STATE][0].as_py())
        if state["format"] != FORMAT:
            raise SchemaError(f"a snapshot of the models is of format {state['format']}, not {FORMAT}")
        if state["models"] != models.version:
            raise SchemaError(
                f"a snapshot belongs to models {state['models']}, and these are {models.version}: "
                "give it the models that it was made with, or replay from the beginning"
            )
        return _restored(models, tables, state)
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise SchemaError(f"a snapshot of the models cannot be read: {error!r}") from error


def _restored(models: Models, tables: Mapping[str, pa.Table], state: Mapping[str, Any]) -> Ensemble:
    ensemble, width = Ensemble(models), len(models.names)
    rows = matrix_of(tables["population"], "rows", np.float32, (len(models.population), width))
    knots = matrix_of(tables["quantiles"], "knots", np.float64, (KNOTS, width))
    ensemble.population = Population(rows, state["next_row"], Scaling(knots))
    nodes = models.masses.scored_with.shape
    scored_with, learning = (matrix_of(tables["masses"], name, np.int32, nodes) for name in ("scored_with", "learning"))
    ensemble.half_space_trees = HalfSpaceTrees(width, TreeMasses(scored_with, learning, **state["masses"]))
    weights = matrix_of(tables["linear"], "weights", np.float64, (width,))
    ensemble.logistic_regression = LogisticRegression(LinearWeights(weights, state["linear_intercept"]))
    ensemble.teachers = DailyTeachers(matrix_of(tables["teachers"], "days", np.int32, (SLOTS,)))
    ensemble.pending = [matrix_of(tables["pending"], "values", np.float32, (-1, width))]
    ensemble.pending_risks = [matrix_of(tables["pending_risks"], "risk", np.float32, (-1,))]
    ensemble.blocks, ensemble.block_rows = int(state["blocks"]), int(state["block_rows"])
    ensemble.risk_drift, ensemble.verdict_drift = (
        DriftDetector(signal, **state["detectors"][signal]) for signal in ("risk", "verdicts")
    )
    ensemble.drifts = [Drift(**drift) for drift in state["drifts"]]
    ensemble.verdict_seq = int(state["verdict_seq"])
    if _PRECEDENTS in tables:
        ensemble.recall(_precedents_of(tables[_PRECEDENTS], width))
    if "verdicts" in tables:
        values = matrix_of(tables["verdicts"], "values", np.float32, (-1, width))
        kind = matrix_of(tables["verdicts"], "kind", np.int8, (len(values),))
        trees = MondrianTrees.from_table(tables["forest"])
        ensemble.mondrian_forest = MondrianForest(models.forest, LabelledValues(values, kind), trees)
    return ensemble


def _detectors(ensemble: Ensemble) -> tuple[DriftDetector, DriftDetector]:
    return ensemble.risk_drift, ensemble.verdict_drift


def _table_of_precedents(precedents: Precedents) -> pa.Table:
    of = precedents.by_account
    return table_of(
        key=np.array(list(of), np.uint64),
        harvesting=np.array([one.harvesting for one in of.values()], np.int8),
        stage=np.array([one.stage for one in of.values()], np.int8),
        values=np.stack([one.values for one in of.values()]),
    )


def _precedents_of(table: pa.Table, width: int) -> dict[int, Precedent]:
    """By account, those judged longest ago first."""
    values = matrix_of(table, "values", np.float32, (-1, width))
    account = matrix_of(table, "key", np.uint64, (len(values),)).tolist()
    harvesting, stage = (matrix_of(table, name, np.int8, (len(values),)).tolist() for name in ("harvesting", "stage"))
    rows = zip(account, harvesting, stage, values, strict=True)
    return {whose: Precedent(bool(says), at, row.copy()) for whose, says, at, row in rows}
