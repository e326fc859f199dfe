"""Models survive their folder, and one that was not made for this Stillwatch is refused in one line."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.features import FEATURES
from pipeline.scoring import Ensemble, Models
from pipeline.scoring.corroboration import Corroboration
from pipeline.scoring.mondrian_forest import ForestStart
from pipeline.scoring.mondrian_trees import MondrianTrees
from pipeline.scoring.views import unused_columns
from tests.unit.scoring import traffic


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    traffic.models().save(tmp_path / "models")
    return tmp_path / "models"


def load(folder: Path) -> Models:
    return Models.load(folder, traffic.NAMES, traffic.HASH)


def test_models_survive_their_folder(folder: Path) -> None:
    loaded, rows = load(folder), traffic.feature_rows(600)
    assert loaded.version == traffic.models().version
    before, after = (traffic.run(Ensemble(models), rows) for models in (traffic.models(), loaded))
    assert traffic.same_scores(before, after)


def test_how_much_boosted_trees_count_survives_too(folder: Path) -> None:
    models = replace(traffic.models(), trees=replace(traffic.models().trees, boosted_share=0.25))
    models.save(folder)
    assert load(folder).trees.boosted_share == 0.25


@pytest.mark.parametrize("corroboration", (None, Corroboration(2, 5.0, 1.5)))
def test_what_adds_to_trees_survives_too(folder: Path, corroboration: Corroboration | None) -> None:
    models = replace(traffic.models(), trees=replace(traffic.models().trees, corroboration=corroboration))
    models.save(folder)
    assert load(folder).trees.corroboration == corroboration


def test_the_trees_that_ship_are_those_that_the_rows_give(folder: Path) -> None:
    start = load(folder).forest
    grown = ForestStart.grow(start.settings, start.scaling, start.stretch, start.rows).trees
    for column in fields(MondrianTrees):
        assert getattr(grown, column.name).tobytes() == getattr(start.trees, column.name).tobytes()


def test_the_same_rows_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    load(folder).save(tmp_path / "again")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_no_text_ships_but_names(folder: Path) -> None:
    """Neither accounts nor families: names of features, of parts and of sources."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["sources"] == {"made-up": {"rows": 360, "accounts": 120, "harvesting": 40, "families": 3}}
    for path in folder.iterdir():
        assert b"account-0" not in path.read_bytes()


@pytest.mark.parametrize(
    "name",
    (
        "rows.parquet",
        "features.parquet",
        "quantiles.parquet",
        "population.parquet",
        "forest.parquet",
        "trees_young.parquet",
        "gate_grown.parquet",
        "trees_boosted.parquet",
        "evidence.parquet",
        "calibration.json",
    ),
)
def test_a_flipped_byte_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match="hash differs"):
        load(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "forest.parquet").unlink()
    with pytest.raises(ConfigError, match=r"forest\.parquet"):
        load(folder)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    (
        ("format", 99, "format 99"),
        ("features_hash", "0" * 64, "other definitions"),
        ("libraries", {"river": "0.1.0"}, "River 0.1.0"),
        ("libraries", {}, "River none"),
        ("files", {"../../etc/passwd": "0"}, "does not list"),
    ),
)
def test_models_of_another_kind_are_refused(folder: Path, field: str, value: object, words: str) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ConfigError, match=words) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_models_for_other_columns_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="other features"):
        Models.load(folder, tuple(reversed(traffic.NAMES)), traffic.HASH)


@pytest.mark.parametrize("content", ("", "[]", "{}", '{"format": 1}'))
def test_a_manifest_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ConfigError):
        load(folder)


def test_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no models in"):
        load(tmp_path / "nowhere")


def test_the_version_changes_with_any_number(folder: Path) -> None:
    loaded = load(folder)
    loaded.linear.weights[3] = np.nextafter(loaded.linear.weights[3], 1)
    assert loaded.version != traffic.models().version


def test_the_models_that_ship_look_at_the_features_that_training_lets_them() -> None:
    unused = [FEATURES[column].name for column in unused_columns(FEATURES)]

    shipped = Models.load(None)

    assert [name for name, is_used in zip(shipped.names, shipped.used, strict=True) if not is_used] == unused
