"""Looks at stored text: each is on record before it happens, or it does not happen.

The commands and the triage page all come through here.
"""

from __future__ import annotations

from typing import Final

from pipeline.errors import ConfigError, NoRightError, RetryableError
from pipeline.io.catalog import Catalog
from pipeline.io.desk.audit_log import Act

_WHY_NOT: Final = "whoever looks at stored text goes on record, and the record cannot be written"


class NotRecordedError(ConfigError):
    """A look at stored text cannot be put on record, so that nobody may look."""


def record_look(catalog: Catalog, act: Act, now_us: int) -> None:
    """Put on record that somebody looks at stored text.

    Args:
        catalog: where the record is.
        act: one of `content.…`.
        now_us: wall clock.

    Raises:
        NotRecordedError: this process, or its database role, may not write the catalog.
        RetryableError: the catalog does not answer.
    """
    why = "the catalog cannot be written from here"
    if not catalog.read_only:
        try:
            catalog.desk.audit.record(act, now_us)
        except NoRightError as error:  # PostgreSQL: the role may read alone
            why = error.said
        except RetryableError as error:
            raise RetryableError(f"{_WHY_NOT}: {error}") from error
        else:
            return
    raise NotRecordedError(f"{_WHY_NOT}: {why}")
