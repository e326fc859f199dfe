"""Which rows of the lake are an account's."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import SchemaError
from pipeline.lake_tables import TABLES

REJECTS: Final = "rejects"


class Named:
    """An account, and what of the lake names it.

    A reject is bytes that are no event, so it is the account's where they hold `"account_id": "…"` with its id.
    """

    def __init__(self, account_id: str) -> None:
        """Take the id as it stands in the lake."""
        self.account_id = account_id
        spellings = {json.dumps(account_id, ensure_ascii=ascii_only).encode() for ascii_only in (True, False)}
        word = rb"[A-Za-z0-9_-]"
        self._mention = re.compile(rb"(?<!" + word + rb")" + re.escape(account_id.encode()) + rb"(?!" + word + rb")")
        self._in_raw = re.compile(rb'"account_id"\s*:\s*(?:' + b"|".join(map(re.escape, sorted(spellings))) + rb")")

    def others(self, table: str, rows: pa.Table) -> pa.Array:
        """Which rows are not the account's."""
        if table != REJECTS:
            return pc.not_equal(rows[TABLES[table].sought], self.account_id)
        raws = rows["raw"].to_pylist()
        reasons = rows["reason"].to_pylist() if "reason" in rows.column_names else [""] * len(raws)
        return pa.array([not self._names(raw, reason) for raw, reason in zip(raws, reasons, strict=True)], pa.bool_())

    def rows_in(self, table: str, root: Path, paths: Sequence[str]) -> dict[str, int]:
        """How many rows of each file are the account's; files without any are left out.

        Raises:
            SchemaError: a file is missing or broken.
        """
        if not paths:
            return {}
        try:
            if table == REJECTS:
                return self._rejects_in(root, paths)
            column = TABLES[table].sought
            query = (
                "SELECT filename, count(*) FROM read_parquet(?, filename = true, hive_partitioning = false, "  # noqa: S608
                f"union_by_name = true) WHERE {column} = ? GROUP BY filename"
            )
            with duckdb.connect() as connection:
                found = connection.execute(query, [[str(root / path) for path in paths], self.account_id]).fetchall()
            return {Path(name).relative_to(root).as_posix(): count for name, count in found}
        except (duckdb.Error, pa.ArrowInvalid, OSError) as error:
            raise SchemaError(f"{' '.join(str(error).split())}; see `maintain verify`") from error

    def mentions_in(self, root: Path, paths: Sequence[str]) -> int:
        """Rejects that are not the account's by the above, and hold its id all the same, not within a longer word.

        Raises:
            SchemaError: a file is missing or broken.
        """
        count = 0
        try:
            for path in paths:
                with pq.ParquetFile(root / path) as file:
                    for batch in file.iter_batches(columns=["raw", "reason"]):
                        rows = pa.Table.from_batches([batch])
                        raws = rows.filter(self.others(REJECTS, rows))["raw"].to_pylist()
                        count += sum(bool(raw and self._mention.search(raw)) for raw in raws)
        except (pa.ArrowInvalid, OSError) as error:
            raise SchemaError(f"{' '.join(str(error).split())}; see `maintain verify`") from error
        return count

    def _rejects_in(self, root: Path, paths: Sequence[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for path in paths:
            with pq.ParquetFile(root / path) as file:
                for batch in file.iter_batches(columns=["raw", "reason"]):
                    mine = len(batch) - pc.sum(self.others(REJECTS, pa.Table.from_batches([batch]))).as_py()
                    if mine:
                        counts[path] = counts.get(path, 0) + mine
        return counts

    def _names(self, raw: bytes | None, reason: str) -> bool:
        return bool(raw and self._in_raw.search(raw)) or json.dumps(self.account_id) in reason
