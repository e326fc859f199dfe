"""The catalog, for commands that ask it and make none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipeline.config import Settings
from pipeline.io.catalog import Catalog


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Catalog]:
    """The catalog that the settings name, which must be there.

    Raises:
        As `Catalog.open`.
    """
    with contextlib.closing(Catalog.open(settings.catalog_url, create=False)) as ledger:
        yield ledger
