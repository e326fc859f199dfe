"""How the C library's heap deals with the large blocks that every fetch takes and frees again.

glibc gives a large block back to the kernel when it is freed, and the kernel hands out zeroed pages anew for the next
one.  A fetch takes and frees tens of megabytes in such blocks, and faulting the pages in costs more than everything
that is done to the bytes in them.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

KEPT_BYTES_MAX: Final = 64 * 1024 * 1024
"""What each heap keeps for later at most, at its end: the blocks of one fetch, from the socket to the slab."""

BLOCK_BYTES_MAX: Final = 32 * 1024 * 1024
"""Larger blocks are given back as ever; glibc takes no higher bound."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # `M_…` of malloc.h
_CHOSEN_BY_THE_OPERATOR: Final = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Let glibc keep the memory of freed blocks for the next ones, in the whole process.

    Does nothing where the C library is another one, or where the environment says how glibc is to behave.

    Returns:
        Whether it did.
    """
    if any(name in os.environ for name in _CHOSEN_BY_THE_OPERATOR):
        return False
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return False
    mallopt = ctypes.CDLL(None).mallopt  # of its two settings each switches off that glibc guesses the other
    return bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES_MAX) and mallopt(_MMAP_THRESHOLD, BLOCK_BYTES_MAX))
