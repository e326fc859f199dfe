"""The form of a snapshot: an envelope around named parts of plain data, which opens only where it fits.

::

    magic          8 bytes   STILLSNP
    format         uint32    little-endian
    sha256        32 bytes   of all that follows
    header at      uint64    its place in the file, little-endian
    header bytes   uint32    little-endian
    parts                    from byte 64 on: Arrow IPC streams, JSON or bytes, each at a multiple of 64 bytes
    header         JSON      label; name, kind, start and size of each part

Nothing in it is ever run: no pickle, whatever the bytes say.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

import pyarrow as pa

from pipeline.batch import Partition
from pipeline.counted import counted
from pipeline.errors import SchemaError

FORMAT: Final = 2

_MAGIC: Final = b"STILLSNP"
_START: Final = struct.Struct("<8sI32s")
_HEADER: Final = struct.Struct("<QI")
_ALIGNMENT: Final = 64
_BODY: Final = 64
"""Where the parts begin; all of the above is shorter."""

Json: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None
Part: TypeAlias = pa.Table | pa.RecordBatchReader | bytes | Json
Parts: TypeAlias = Mapping[str, Part]
"""What a stage remembers: tables, bytes and what JSON can say, by name.

A table that is too large to be held twice is a reader, which makes it batch by batch: once, and before the stage goes
on."""


def _libraries() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("numpy", "pyarrow", "river")}


@dataclass(frozen=True, slots=True)
class Label:
    """What a snapshot is of, and what it fits.

    Attributes:
        partition: whose.
        next_offset: it remembers all records below.
        features: hash of the features' names and definitions.
        models: version of the models.
        libraries: versions of the libraries whose numbers it holds, by name.
    """

    partition: Partition
    next_offset: int
    features: str
    models: str
    libraries: Mapping[str, str] = field(default_factory=_libraries)


def pack(label: Label, parts: Parts) -> bytes:
    """Put parts into an envelope; the same parts give the same bytes.

    All is written to one place that grows, and never joined: a snapshot may be of hundreds of megabytes.
    """
    sink, places = io.BytesIO(), []
    sink.write(bytes(_BODY))
    for name, part in parts.items():
        start = sink.tell()
        kind = _write(part, sink)
        places.append([name, kind, start - _BODY, sink.tell() - start])
        sink.write(bytes(-sink.tell() % _ALIGNMENT))
    at = sink.tell()
    said = {**asdict(label), "partition": list(label.partition), "parts": places}
    sink.write(json.dumps(said, separators=(",", ":")).encode())
    size = sink.tell() - at
    sink.seek(_START.size)
    sink.write(_HEADER.pack(at, size))
    with sink.getbuffer() as whole:
        digest = hashlib.sha256(whole[_START.size :]).digest()
    sink.seek(0)
    sink.write(_START.pack(_MAGIC, FORMAT, digest))
    return sink.getvalue()


def label_of(blob: bytes) -> Label:
    """Read whose a snapshot is; checks that its bytes are those that were written.

    Raises:
        SchemaError: they are not, or the form is another one's.
    """
    return _opened(blob)[0]


def unpack(blob: bytes, expected: Label) -> dict[str, Part]:
    """Take parts out of an envelope.

    Args:
        blob: what `pack` made.
        expected: what the parts must fit, but for libraries where another release gives the same numbers.

    Raises:
        SchemaError: it is damaged, or does not fit; in one line.
    """
    label, places, body = _opened(blob)
    for what, found, wanted in (
        ("partition", str(label.partition), str(expected.partition)),
        ("offset", label.next_offset, expected.next_offset),
        ("features", label.features, expected.features),
        ("models", label.models, expected.models),
        ("river", label.libraries.get("river"), expected.libraries.get("river")),
    ):
        if found != wanted:
            raise SchemaError(f"the snapshot is of {what} {found}, this job is of {what} {wanted}")
    try:
        return {name: _read(kind, body[start : start + size]) for name, kind, start, size in places}
    except (ValueError, pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"the snapshot holds a part that cannot be read: {' '.join(str(error).split())}") from error


def _opened(blob: bytes) -> tuple[Label, list[Any], memoryview]:
    view = memoryview(blob)
    if len(blob) < _BODY:
        raise SchemaError(f"the snapshot is cut short: it has {counted(len(blob), 'byte')}")
    magic, version, digest = _START.unpack_from(blob)
    if magic != _MAGIC:
        raise SchemaError("this is no snapshot: it begins with other bytes")
    if version != FORMAT:
        raise SchemaError(f"the snapshot has format version {version}, this Stillwatch knows version {FORMAT}")
    if hashlib.sha256(view[_START.size :]).digest() != digest:
        raise SchemaError("the snapshot is cut short or was changed: its checksum does not match its bytes")
    at, size = _HEADER.unpack_from(blob, _START.size)
    try:
        said = json.loads(bytes(view[at : at + size]))
        places = list(said.pop("parts"))
        label = Label(**{**said, "partition": Partition(*said["partition"])})
    except (ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"the snapshot has a header that cannot be read: {error}") from error
    return label, places, view[_BODY:at]


def _write(part: Part, sink: io.BytesIO) -> str:
    """Write a part, and say of which kind it is."""
    if isinstance(part, (pa.Table, pa.RecordBatchReader)):
        is_table = isinstance(part, pa.Table)
        # Most of a state is zeros.  Compressed by one thread, so that it takes no more CPUs than the job is counted by.
        options = pa.ipc.IpcWriteOptions(compression=None if is_table else "zstd", use_threads=False)
        with pa.ipc.new_stream(sink, part.schema, options=options) as writer:
            for batch in part.to_batches() if is_table else part:
                writer.write_batch(batch)
        return "arrow" if is_table else "batches"
    sink.write(part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode())
    return "bytes" if isinstance(part, bytes) else "json"


def _read(kind: str, content: memoryview) -> Part:
    if kind == "arrow":
        return pa.ipc.open_stream(pa.py_buffer(content)).read_all()
    if kind == "batches":
        return pa.ipc.open_stream(pa.py_buffer(content))
    if kind == "bytes":
        return bytes(content)
    if kind == "json":
        part: Json = json.loads(bytes(content))
        return part
    raise ValueError(f"nobody knows the kind {kind!r}")
