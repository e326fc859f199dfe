"""Files and names that outlive a crash."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa


def write_for_good(path: Path, content: bytes | pa.Buffer, mode: str) -> None:
    """Write a file whose bytes are on the disk when this returns."""
    with path.open(mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folders(folders: Iterable[Path], root: Path) -> None:
    """Make names durable: fsync each folder and its parents up to the lake."""
    every = {parent for folder in folders for parent in (folder, *folder.parents) if parent.is_relative_to(root)}
    for folder in every:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace_for_good(path: Path, content: bytes, root: Path) -> None:
    """Put a file in the place of one that may be there: whoever looks finds the one or the other, whole.

    Raises:
        OSError: the disk is full or fails.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    write_for_good(partial, content, "wb")
    partial.replace(path)
    sync_folders([path.parent], root)
