"""What an exception says, held against what the lake and the catalog know.

The command and the triage page both come through here.
"""

from __future__ import annotations

from pipeline.io.catalog import AlertFilter, Catalog
from pipeline.io.desk.stored_rows import Wanted, near_names, rows_at, seen
from pipeline.io.lake import Lake
from pipeline.judging import never_seen


def check_seen(lake: Lake, catalog: Catalog, account_id: str, otherwise: str) -> None:
    """See that an account was ever seen: an exception on one whose id is mistyped would cover nothing.

    Args:
        lake: where its events and scores are.
        catalog: where its alerts are: they outlive events, which are let go of when they are old.
        account_id: as it was said.
        otherwise: how the exception can be made all the same, for the end of the error.

    Raises:
        ConfigError: it was not: what is near to it, and what to do.
        RetryableError: the catalog does not answer.
        SchemaError: a file of the lake is missing or broken.
    """
    if catalog.alerts(AlertFilter(entity_id=account_id, limit=1)):
        return
    if rows_at(lake, catalog, [Wanted(account_id)]) == [None] and not seen(lake, catalog, [account_id]):
        raise never_seen(account_id, near_names(lake, catalog, account_id), otherwise)
