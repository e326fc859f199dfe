"""What was found about accounts: as a lake has it, and as it would be if nothing had ever happened to a worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.alerts import Alert, alerts_of
from pipeline.analysis import Analysis, Watch
from pipeline.batch import Partition
from pipeline.decisions import Verdict
from pipeline.decode import Decoder
from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake
from tests.fakes import records_of


@dataclass
class Found:
    """Windows and alerts, each in an order of their own.

    Attributes:
        windows: every row, written out so that NaN and null compare.
        alerts: of the catalog.
        alerts_in_lake: of the lake's table.
        outbox: ids of those that are to be sent.
    """

    windows: list[str]
    alerts: list[Alert]
    alerts_in_lake: list[Alert]
    outbox: list[str]


def found_in(lake: Lake, catalog: Catalog) -> Found:
    """What a lake and its catalog have."""
    live = catalog.live_files()

    def rows(table: str) -> list[pa.Table]:
        files = [file for file in live if file.table_name == table]
        glob = {path.relative_to(lake.root).as_posix() for path in (lake.root / table).rglob("*.parquet")}
        assert {file.path for file in files} == glob
        return [pq.read_table(lake.root / file.path, partitioning=None) for file in files]

    alerts = [alert for table in rows("alerts") for alert in alerts_of(table)]
    assert set(catalog.outbox().values()) <= {"new"}
    return Found(
        sorted(repr(row) for table in rows("account_windows") for row in table.to_pylist()),
        by_id(catalog.alerts()),
        by_id(alerts),
        sorted(catalog.outbox()),
    )


def uninterrupted(
    records: Mapping[Partition, Mapping[int, tuple[bytes | None, int]]],
    watch: Watch,
    judged: Mapping[Partition, Sequence[tuple[int, Sequence[Verdict]]]] | None = None,
) -> Found:
    """What one analysis a partition finds in all records at once; `judged`: verdicts, and the offset before which."""
    windows: list[dict[str, Any]] = []
    alerts: list[Alert] = []
    for partition, of_one in records.items():
        decoded = Decoder().decode(records_of(partition, of_one, max(of_one, default=0) + 1))
        analysis, offsets = Analysis(partition, watch), decoded.events["offset"].to_numpy()
        first = 0
        for offset, verdicts in [*(judged or {}).get(partition, ()), (offsets[-1] + 1 if len(offsets) else 0, ())]:
            stop = int(np.searchsorted(offsets, offset))
            analysed = analysis.step(decoded.events.slice(first, stop - first))
            first = stop
            windows += analysed.windows.to_pylist()
            alerts += analysed.alerts
            analysis.judge(verdicts)
    outbox = sorted(alert.alert_id for alert in alerts if alert.state == "live")
    return Found(sorted(map(repr, windows)), by_id(alerts), by_id(alerts), outbox)


def by_id(alerts: list[Alert]) -> list[Alert]:
    """The same, by their ids."""
    return sorted(alerts, key=lambda alert: alert.alert_id)
