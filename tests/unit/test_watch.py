"""The law with the real stages: features, models and rules give the same however events are cut and snapshots taken."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest

from pipeline.alerts import Alert
from pipeline.analysis import Analysis, Watch
from pipeline.batch import Partition
from pipeline.config import read_settings
from pipeline.decode import Decoder
from pipeline.errors import ConfigError, SchemaError
from pipeline.features import FEATURES_HASH, NAMES
from pipeline.io.inspection import inspect
from pipeline.scoring.boosted_trees import Boosting
from pipeline.scoring.labelled import LabelledRows
from pipeline.scoring.models import Models
from pipeline.scoring.mondrian_forest import ForestSettings
from pipeline.scoring.training import TrainingSettings, train
from pipeline.simulation.traffic import Simulation
from pipeline.snapshots import label_of, pack, unpack
from pipeline.watch import load_watch
from tests.fakes import records_of
from tests.findings import found_in, uninterrupted
from tests.rule_files import rule_text
from tests.simulation.sites import Site, rounds

P0 = Partition("access", 0)
COUNT = 18_000


@cache
def models() -> Models:
    """Small models of nothing: what they say does not matter, only that it depends on all before."""
    rng = np.random.default_rng(0)
    accounts = np.repeat(np.arange(120), 3)
    harvesting = accounts % 3 == 0
    values = rng.normal(size=(len(accounts), len(NAMES))).astype(np.float32)
    values[:, 0] += harvesting
    family = np.where(harvesting, np.array(["alpha", "beta", "gamma"])[accounts // 3 % 3], "")
    rows = LabelledRows(
        values, accounts.astype(str), np.tile([8, 16, 64], 120), np.tile([0, 1, 4], 120), harvesting, np.where(harvesting, "", "people"), family,
        np.where(harvesting, "loud", ""), np.full(len(accounts), "made-up"),
    )  # fmt: skip
    settings = TrainingSettings(
        rows_max=400, folds=3, forest=ForestSettings(n_estimators=3), boosting=Boosting(forests=1, rounds=4)
    )
    return train(rows, NAMES, FEATURES_HASH, settings)


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    folder = tmp_path_factory.mktemp("watch")
    models().save(folder / "models")
    live = rule_text(name="some_risk", condition="risk >= 0.03 and exchanges >= 8", state="live", suppress_hours=1)
    shadow = rule_text(name="many", condition="exchanges >= 20", suppress_hours=2)
    (folder / "rules.toml").write_text(live + shadow)
    settings = read_settings(None, models=str(folder / "models"), rules=str(folder / "rules.toml"))
    return load_watch(settings)


@cache
def payloads() -> dict[int, tuple[bytes | None, int]]:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    traffic = Simulation(seed=3, accounts=200, start=start, hours=None, attack_share=0.4).events()
    records: dict[int, tuple[bytes | None, int]] = {}
    for offset, event in zip(range(COUNT), traffic, strict=False):
        records[offset] = (orjson.dumps(event), -1)
    return records


def test_neither_cuts_nor_snapshots_are_seen(watch: Watch) -> None:
    events = Decoder().decode(records_of(P0, payloads(), COUNT)).events
    assert len(events) == COUNT
    whole = Analysis(P0, watch).step(events)
    assert len(whole.windows) > 3 * 256, "several blocks are learned"
    assert {alert.rule for alert in whole.alerts} == {"some_risk", "many"}
    for seed in range(3):
        rng = random.Random(seed)
        cuts = [0, *sorted(rng.sample(range(1, COUNT), 12)), COUNT]
        analysis, windows, alerts = Analysis(P0, watch), [], list[Alert]()
        for start, stop in itertools.pairwise(cuts):
            if rng.random() < 0.5:
                analysis = Analysis.restore(P0, watch, analysis.snapshot(), analysis.next_offset)
            analysed = analysis.step(events.slice(start, stop - start))
            windows.append(analysed.windows)
            alerts += analysed.alerts
        assert pa.concat_tables(windows).combine_chunks().equals(whole.windows)
        assert tuple(alerts) == whole.alerts


def test_a_worker_that_dies_again_and_again_finds_what_one_that_lives_does(watch: Watch, tmp_path: Path) -> None:
    site = Site(tmp_path)
    limits = {"watch": watch, "file_rows_max": 800, "file_age_s": 1e6}
    for start in range(0, COUNT, 3000):
        for offset in range(start, start + 3000):
            site.log.append(*payloads()[offset])
        stream, member = site.worker(**limits)
        member.records_max = 400
        rounds(stream, lambda end=start + 1400: site.catalog.offsets().get(P0, 0) >= end, most=2000)
        if start % 9000 == 0:
            assert stream.flush(site.clock.elapsed_s() + 10)
        site.kafka.leave(member)
    site.land(**limits)
    found, wanted = found_in(site.lake, site.catalog), uninterrupted({P0: payloads()}, watch)
    assert found.windows == wanted.windows
    assert found.alerts == found.alerts_in_lake == wanted.alerts
    assert found.outbox == wanted.outbox
    assert inspect(site.lake, site.catalog).errors == []
    site.catalog.close()


@pytest.mark.parametrize("stage", ("states", "ensemble", "alerting"))
def test_each_stage_refuses_parts_that_are_not_its_own(watch: Watch, stage: str) -> None:
    blob = Analysis(P0, watch).snapshot()
    label = label_of(blob)
    parts = unpack(blob, label)
    mine = [name for name in parts if name.startswith(f"{stage}.")]
    for changed in ({**parts, f"{stage}.more": 1}, {name: part for name, part in parts.items() if name != mine[0]}):
        with pytest.raises(SchemaError):
            Analysis.restore(P0, watch, pack(label, changed), label.next_offset)


def test_models_that_are_not_there_are_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="models"):
        load_watch(read_settings(None, models=str(tmp_path / "none")))
