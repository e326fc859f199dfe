"""The files of models: which there are, and that they are those that were trained."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ConfigError
from pipeline.scoring.scaling import Scaling

FORMAT: Final = 7
SHIPPED: Final = Path(__file__).parent / "shipped"

STAGED: Final = ("trees_young", "gate_young", "trees_grown", "gate_grown", "trees_boosted")
PARQUET: Final = ("rows", "features", "quantiles", "population", "forest", *STAGED, "evidence")


def read_population(folder: Path | None, names: tuple[str, ...], features_hash: str) -> Scaling:
    """The honest accounts that "normal" starts from, which the words of scores compare with.

    Args:
        folder: of the models; None for those that ship with the package.
        names: of the features.
        features_hash: of their definitions.

    Raises:
        ConfigError: as of `Models.load`.
    """
    folder = SHIPPED if folder is None else folder
    manifest = checked_manifest(folder, features_hash)
    name = "population.parquet"
    table = pq.read_table(pa.BufferReader(checked_bytes(folder, name, manifest["files"][name])))
    if tuple(table.column_names) != names:
        raise ConfigError(f"the models in {folder} have other features than this Stillwatch: train them anew")
    return Scaling.fit(matrix(table, np.float32))


def checked_manifest(folder: Path, features_hash: str) -> dict[str, Any]:
    """What a folder says of its models.

    Raises:
        ConfigError: they are missing, of another format, or made for other features or another River.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no models in {folder}: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ConfigError(f"the models in {folder} are of format {found}, not {FORMAT}: train them anew")
    if manifest.get("features_hash") != features_hash:
        raise ConfigError(f"the models in {folder} were trained on other definitions of the features: train them anew")
    river, here = manifest.get("libraries", {}).get("river", "none"), libraries()["river"]
    if river.split(".")[:2] != here.split(".")[:2]:
        raise ConfigError(f"the models in {folder} are of River {river}, and this is River {here}: train them anew")
    if set(manifest.get("files", {})) != {*(f"{name}.parquet" for name in PARQUET), "calibration.json"}:
        raise ConfigError(f"{path} does not list the files of the models: train them anew")
    return manifest


def checked_bytes(folder: Path, name: str, digest: str) -> bytes:
    """One file of the models.

    Raises:
        ConfigError: it is missing, or is not what was trained.
    """
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the models: {error}") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise ConfigError(f"{folder / name} is not the file that was trained: its hash differs from the manifest's")
    return content


def libraries() -> dict[str, str]:
    """Versions of what models depend on."""
    return {name: importlib.metadata.version(name) for name in ("river", "numpy")}


def matrix(table: pa.Table, dtype: Any) -> npt.NDArray[Any]:
    """A table of numbers, a column a feature."""
    return np.ascontiguousarray(np.column_stack([column.to_numpy() for column in table.columns]), dtype=dtype)
