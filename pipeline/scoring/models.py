"""The models as they ship: plain data with hashes, checked when they are loaded.

A folder holds `manifest.json`, `calibration.json` and Parquet files: `rows` (the starting rows: features and label),
`features` (one row a feature: stretch, linear weight, direction), `quantiles` (what turns values into ranks),
`population` (rows of honest accounts, from which "normal" starts), `forest` (the trees that the starting rows give),
`trees_young` and `trees_grown` (extremely randomised ones, of every source) with `gate_young` and `gate_grown` (which
source a row is like), `trees_boosted` (for grown accounts, of all sources), and `evidence` (where the scores of honest
accounts end).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.features import FEATURES_HASH, NAMES
from pipeline.scoring.combination import PARTS, Combination
from pipeline.scoring.corroboration import Corroboration
from pipeline.scoring.evidence import CHANNELS, Evidence
from pipeline.scoring.extra_trees import Experts
from pipeline.scoring.half_space_trees import HalfSpaceTrees, TreeMasses
from pipeline.scoring.logistic_regression import LinearWeights
from pipeline.scoring.model_files import FORMAT, PARQUET, SHIPPED, checked_bytes, checked_manifest, libraries, matrix
from pipeline.scoring.mondrian_forest import ForestSettings, ForestStart, LabelledValues
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.scaling import Floats, Scaling, Values
from pipeline.scoring.staged_trees import StagedTrees

_LABEL: Final = "kind"
_NAME: Final = "name"
_EXPERT: Final = "expert"
_LOG_ODDS: Final = "log_odds"


@dataclass(frozen=True, eq=False)
class Models:
    """Everything that a partition's ensemble starts from; shared by all of them and never changed.

    Attributes:
        names: of the features, in the order of the columns.
        features_hash: of the definitions that the values were made by.
        used: bool[F]: the features that models look at; the others serve rules and people.
        forest: the labelled model's start.
        trees: those that carry the risk, which do not learn any more.
        linear: weights of the linear reference.
        directions: float64[F]: +1 where harvesters have more of a feature, -1 where less, 0 where it does not count.
        population: float32[R, F]: rows of honest accounts.
        evidence: from scores to what they are worth.
        combination: from evidence to risk.
        sources: what they were trained on, in numbers.
    """

    names: tuple[str, ...]
    features_hash: str
    used: npt.NDArray[np.bool_]
    forest: ForestStart
    trees: StagedTrees
    linear: LinearWeights
    directions: Floats
    population: Values
    evidence: Evidence
    combination: Combination
    sources: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def masses(self) -> TreeMasses:
        """Half-space trees that have learned the population."""
        trees = HalfSpaceTrees(len(self.names))
        trees.learn(Scaling.fit(self.population).ranks(self.population))
        return trees.masses

    @cached_property
    def version(self) -> str:
        """Twelve hex digits that change with any number in the models."""
        digest = hashlib.sha256()
        for name, table in self._tables().items():
            digest.update(name.encode())
            for column in table.drop_columns([_NAME] if _NAME in table.column_names else []).columns:
                digest.update(column.to_numpy().tobytes())
        digest.update(json.dumps(self.names).encode())
        digest.update(json.dumps(self._calibration(), sort_keys=True).encode())
        return digest.hexdigest()[:12]

    @property
    def learned(self) -> frozenset[str]:
        """SHA-256 of the files of the sources, and of the logs that these were made of, of those that say it."""
        of = [{source["sha256"], *source.get("of", ())} for source in self.sources.values() if "sha256" in source]
        return frozenset().union(*of)

    @cached_property
    def versions(self) -> dict[str, str]:
        """What goes with each score."""
        return {"models": self.version, "features": self.features_hash[:12]}

    def save(self, folder: Path) -> None:
        """Write the models to a folder, which is made; files of the same names are replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self._tables().items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        (folder / "calibration.json").write_text(json.dumps(self._calibration(), indent=1, sort_keys=True) + "\n")
        files = [*(f"{name}.parquet" for name in PARQUET), "calibration.json"]
        manifest = {
            "format": FORMAT,
            "version": self.version,
            "features_hash": self.features_hash,
            "libraries": libraries(),
            "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
            "sources": dict(self.sources),
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(
        cls, folder: Path | None = None, names: tuple[str, ...] = NAMES, features_hash: str = FEATURES_HASH
    ) -> Models:
        """Read models that `save` wrote.

        Args:
            folder: where they are; None for those that ship with the package.
            names: of the features that will be scored.
            features_hash: of their definitions.

        Raises:
            ConfigError: they are missing, damaged, of another format, or made for other features or another River.
        """
        folder = SHIPPED if folder is None else folder
        manifest = checked_manifest(folder, features_hash)
        contents = {name: checked_bytes(folder, name, digest) for name, digest in manifest["files"].items()}
        tables = {name: pq.read_table(pa.BufferReader(contents[f"{name}.parquet"])) for name in PARQUET}
        if tuple(tables["quantiles"].column_names) != names:
            raise ConfigError(f"the models in {folder} have other features than this Stillwatch: train them anew")
        calibration = json.loads(contents["calibration.json"])
        columns = ("used", "stretch", "linear", "direction")
        features = {name: tables["features"][name].to_numpy().copy() for name in columns}
        rows = tables["rows"]
        starting = LabelledValues(matrix(rows.drop_columns([_LABEL]), np.float32), rows[_LABEL].to_numpy().copy())
        forest = ForestStart(
            ForestSettings(**calibration["forest"]),
            Scaling(matrix(tables["quantiles"], np.float64)),
            features["stretch"],
            starting,
            MondrianTrees.from_table(tables["forest"]),
        )
        weights = tuple(calibration["combination"]["weights"][part] for part in PARTS)
        stored = calibration["combination"]
        exceeded = {float(share): risk for share, risk in stored["exceeded"].items()}
        combination = Combination(weights, stored["intercept"], stored["prior"], exceeded)
        linear = LinearWeights(features["linear"], calibration["linear_intercept"])
        population = matrix(tables["population"], np.float32)
        return cls(
            names=names, features_hash=features_hash, used=features["used"], forest=forest,
            trees=_trees(tables, calibration),
            linear=linear,
            directions=features["direction"], population=population, evidence=_evidence(tables["evidence"]),
            combination=combination, sources=manifest["sources"],
        )  # fmt: skip

    def _tables(self) -> dict[str, pa.Table]:
        rows = self.forest.rows
        features = {
            _NAME: list(self.names),
            "used": self.used,
            "stretch": self.forest.stretch,
            "linear": self.linear.weights,
            "direction": self.directions,
        }
        return {
            "rows": _table(self.names, rows.values).append_column(_LABEL, pa.array(rows.kind)),
            "features": pa.table(features),
            "quantiles": _table(self.names, self.forest.scaling.knots),
            "population": _table(self.names, self.population),
            "forest": self.forest.trees.to_table(),
            **_tables_of(self.trees.young, "young"),
            **_tables_of(self.trees.grown, "grown"),
            "trees_boosted": _renamed(self.trees.boosted.to_table(), "probability_1", _LOG_ODDS),
            "evidence": _table(CHANNELS, self.evidence.pivots),
        }

    def _calibration(self) -> dict[str, Any]:
        combination = self.combination
        return {
            "combination": {
                "weights": dict(zip(PARTS, combination.weights, strict=True)),
                "intercept": combination.intercept,
                "prior": combination.prior,
                "exceeded": {f"{share:g}": risk for share, risk in combination.exceeded.items()},
            },
            "boosted_share": self.trees.boosted_share,
            "corroboration": None if self.trees.corroboration is None else asdict(self.trees.corroboration),
            "forest": asdict(self.forest.settings),
            "linear_intercept": self.linear.intercept,
        }


def _tables_of(experts: Experts, stage: str) -> dict[str, pa.Table]:
    tables = [
        expert.to_table().append_column(_EXPERT, pa.repeat(pa.scalar(number, pa.int32()), len(expert.feature)))
        for number, expert in enumerate(experts.experts)
    ]
    return {f"trees_{stage}": pa.concat_tables(tables), f"gate_{stage}": experts.gate.to_table()}


def _trees(tables: Mapping[str, pa.Table], calibration: Mapping[str, Any]) -> StagedTrees:
    boosted = MondrianTrees.from_table(_renamed(tables["trees_boosted"], _LOG_ODDS, "probability_1"))
    stored = calibration["corroboration"]
    return StagedTrees(
        young=_experts(tables, "young"),
        grown=_experts(tables, "grown"),
        boosted=boosted,
        boosted_share=calibration["boosted_share"],
        corroboration=None if stored is None else Corroboration(**stored),
    )


def _renamed(table: pa.Table, name: str, other: str) -> pa.Table:
    return table.rename_columns([other if column == name else column for column in table.column_names])


def _experts(tables: Mapping[str, pa.Table], stage: str) -> Experts:
    table = tables[f"trees_{stage}"]
    numbers = range(pc.max(table[_EXPERT]).as_py() + 1)
    own = (table.filter(pc.equal(table[_EXPERT], number)).drop_columns([_EXPERT]) for number in numbers)
    return Experts(
        tuple(MondrianTrees.from_table(nodes) for nodes in own), MondrianTrees.from_table(tables[f"gate_{stage}"])
    )


def _evidence(table: pa.Table) -> Evidence:
    return Evidence(matrix(table, np.float64))


def _table(names: tuple[str, ...], values: npt.NDArray[Any]) -> pa.Table:
    return pa.table({name: np.ascontiguousarray(values[:, column]) for column, name in enumerate(names)})
