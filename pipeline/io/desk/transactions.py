"""What the books of the desk need of the catalog."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import sqlalchemy as sa


class Transaction(Protocol):
    """`pipeline.io.catalog.Catalog.transaction`."""

    def __call__(self, *, write: bool = False, snapshot: bool = False) -> AbstractContextManager[sa.Connection]:
        """Begin one; an error rolls it back."""
