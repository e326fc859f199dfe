"""Python's garbage collector, where it finds nothing."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collecting() -> Iterator[None]:
    """Look for no garbage meanwhile: for seconds in which much is made and little dropped, such as imports.

    To look through hundreds of thousands of objects again and again is a sixth of the time of imports, and a twentieth
    of that of an answer of bounded size.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
