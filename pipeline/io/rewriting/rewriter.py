"""What everything that rewrites a lake's files works with."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.io.catalog import Catalog
from pipeline.io.lake import Lake
from pipeline.io.rewriting.ledger import RewriteLedger
from pipeline.ports import Clock


class Rewriter:
    """Files of one lake, and what is said of them."""

    def __init__(
        self,
        lake: Lake,
        catalog: Catalog,
        ledger: RewriteLedger,
        clock: Clock,
        step: Callable[[str], object] = lambda _name: None,
    ) -> None:
        """Say where.

        Args:
            lake: the files.
            catalog: which of them readers see.
            ledger: of rewrites, in the same catalog.
            clock: the wall clock says which hours are over.
            step: told of each step that was done.
        """
        self._lake, self._catalog, self._ledger, self._clock, self._step = lake, catalog, ledger, clock, step
