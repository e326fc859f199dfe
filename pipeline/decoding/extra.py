"""Unknown fields of flat objects, kept as the JSON object that the exact way would write of them.

A value is kept as it stands, where writing it anew would give the same bytes: texts without a backslash, numbers in
their shortest form, `true` and `false`.  Whatever is written otherwise is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.decoding.shapes import Members, Objects
from pipeline.decoding.values import is_null
from pipeline.text_views import Mask, Positions, ViewsBuilder

_QUOTE: Final = b'"'[0]


class Extra(NamedTuple):
    """The unknown fields of some objects.

    Attributes:
        array: `string_view`, a JSON object each; null for those that have none, or all of them null.
        sure: those that are proven, but for quotes inside a text: count those.
        quotes: how many quotes belong to them, their keys left out.
    """

    array: pa.Array
    sure: Mask
    quotes: npt.NDArray[np.int64]


def extra(objects: Objects, members: Members, known: Mapping[str, object]) -> Extra | None:
    """Read what is unknown; None if there is nothing.

    Args:
        objects: their bytes.
        members: where the values are.
        known: names of known fields.
    """
    names = [name for name in members.values if name not in known]
    if not names:
        return None
    sure = np.ones(len(members.rows), dtype=np.bool_)
    quotes, filled = np.zeros((2, len(members.rows)), dtype=np.int64)
    columns = []
    for name in names:
        start, end = members.values[name]
        null = is_null(objects.words, start, end - start)
        text = (objects.data[start] == _QUOTE) & (objects.data[end - 1] == _QUOTE) & (end - start > 1)
        text &= np.searchsorted(objects.backslashes, start) == np.searchsorted(objects.backslashes, end)
        rest = np.flatnonzero(~null & ~text)
        as_written = np.zeros(len(null), dtype=np.bool_)
        as_written[rest] = _are_as_written(objects, start[rest], end[rest])
        sure &= null | text | as_written
        quotes += 2 * text
        filled += ~null
        builder = ViewsBuilder(len(start))
        builder.put(objects.buffer, start, end - start)
        value = builder.array(~null).cast(pa.string())
        columns.append(pc.binary_join_element_wise(f',"{name}":', value, ""))
    if not _in_one_order(members.shapes, names):  # an object is written in the order of its own keys
        sure &= filled <= 1
    inside = pc.binary_join_element_wise(*columns, "", null_handling="replace", null_replacement="")
    written = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(inside, 1), "}", "")
    some = pa.array(filled > 0)
    return Extra(pc.if_else(some, written, pa.scalar(None, pa.string())).cast(pa.string_view()), sure, quotes)


def _are_as_written(objects: Objects, start: Positions, end: Positions) -> list[bool]:
    """Which values are numbers or booleans that would be written just so."""
    known: dict[bytes, bool] = {}
    found = []
    for begin, stop in zip(start.tolist(), end.tolist(), strict=True):
        token = objects.data[begin:stop].tobytes()
        if token not in known:
            known[token] = _is_as_written(token)
        found.append(known[token])
    return found


def _is_as_written(token: bytes) -> bool:
    try:
        value = orjson.loads(token)
        return isinstance(value, bool | int | float) and orjson.dumps(value) == token
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return False


def _in_one_order(shapes: Iterable[Sequence[str]], names: Sequence[str]) -> bool:
    """Whether in each shape the names stand in the order given."""
    place = {name: index for index, name in enumerate(names)}
    for shape in shapes:
        places = [place[name] for name in shape if name in place]
        if places != sorted(places):
            return False
    return True
