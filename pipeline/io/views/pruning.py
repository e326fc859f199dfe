"""From the plan of a query to the files that it can need.

DuckDB itself says what a query wants of each table: planned over empty stand-ins, its optimiser pushes the filters down
to the scans, through joins, CTEs, subqueries and views, with constants folded.  Here those filters become conditions on
files: on their day and hour, and on the range of times that the catalog knows of each.

Whatever is not understood excludes nothing.  So an answer never depends on this module, only its speed does.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import duckdb
import pyarrow as pa

from pipeline.io.views.tables import DT, EVENTS, EVENTS_FROM, HOUR, TIME_COLUMNS

Node = dict[str, Any]

OPTIMIZERS: Final = frozenset(
    {
        "cte_filter_pusher",
        "cte_inlining",
        "deliminator",
        "expression_rewriter",
        "filter_pullup",
        "filter_pushdown",
        "outer_join_simplification",
        "unused_columns",
    }
)
"""DuckDB's optimisers that move filters.  No other may run over stand-ins: some look at the (absent) rows."""

_EVERYTHING: Final = "TRUE"
_IN_LIST_MAX: Final = 200
_TIME_MIN: Final = "time_min"
_TIME_MAX: Final = "time_max"

# Words of operators' names.  A SELECT writes where one of its CTEs does: WITH x AS (COPY … TO …) SELECT ….
_WRITING: Final = frozenset({"COPY", "CREATE", "DELETE", "EXPORT", "INSERT", "MERGE", "UPDATE"})

_QUOTED_OR_OPTIONAL: Final = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|optional: """)

_PLAIN: Final = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR", "TYPE"}
)
_TIME_TYPES: Final = frozenset(
    {"DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP_S"}
)
_RISING: Final = frozenset({"epoch", "epoch_ms", "epoch_us", "year"})
_RISING_AFTER_CONSTANT: Final = frozenset({"date_trunc", "datetrunc", "time_bucket"})

_MIRRORED: Final = {
    "COMPARE_EQUAL": "COMPARE_EQUAL",
    "COMPARE_GREATERTHAN": "COMPARE_LESSTHAN",
    "COMPARE_GREATERTHANOREQUALTO": "COMPARE_LESSTHANOREQUALTO",
    "COMPARE_LESSTHAN": "COMPARE_GREATERTHAN",
    "COMPARE_LESSTHANOREQUALTO": "COMPARE_GREATERTHANOREQUALTO",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a query wants.

    Attributes:
        scans: for each table that is read, the filters of each of its scans, in DuckDB's words, all of which must hold;
            None where the plan does not tell.
        writing: name of an operator that writes something; empty if there is none.
        read: for each table that is read, what is said to be read of it: columns and filters, in DuckDB's words.
    """

    scans: Mapping[str, Sequence[Sequence[str]] | None]
    writing: str = ""
    read: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def looks_at(self, table: str, column: str) -> bool:
        """Whether it may read a column of a table, be it to compare it with something."""
        if table not in self.scans:
            return False
        named = re.compile(rf"\b{re.escape(column)}\b")
        return self.scans[table] is None or any(named.search(text) for text in self.read.get(table, ()))

    def of_table(self, table: str) -> Sequence[Sequence[str]] | None:
        """The scans of a table of the lake; None where the plan does not tell.

        What is asked of `events` is asked of both tables it is made of: they share the columns that files are known by.
        """
        names = {table, EVENTS} if table in EVENTS_FROM else {table}
        every = [scans for name, scans in self.scans.items() if name in names]
        return None if None in every else [scan for scans in every if scans for scan in scans]

    def unpruned(self) -> Plan:
        """The same, but it wants all files."""
        return Plan(dict.fromkeys(self.scans), self.writing, self.read)


def read_plan(logical: str, physical: str) -> Plan:
    """Read what `EXPLAIN (FORMAT json)` says over stand-ins.

    Args:
        logical: the plan before any optimiser: names every table that the query reads.
        physical: the final plan: has the filters.
    """
    named = [table for _, node in _operators(logical) if (table := _table(node))]
    found: dict[str, list[Sequence[str]]] = {name: [] for name in named}
    read: dict[str, list[str]] = {}
    for parent, node in _operators(physical):
        table = _table(node)
        if table:
            found.setdefault(table, []).append(_filters(parent, node))
            said = node["extra_info"]
            read.setdefault(table, []).extend([*_texts(said.get("Projections")), *_texts(said.get("Filters"))])
    # Fewer scans than the query names: an optimiser has dropped one, and might not do so over the files.
    scans = {table: filters if len(filters) >= named.count(table) else None for table, filters in found.items()}
    names = [node["name"] for plan in (logical, physical) for _, node in _operators(plan)]
    writing = [name for name in names if _WRITING & set(name.split("_"))]
    return Plan(scans, writing[0] if writing else "", read)


def _operators(plan: str) -> Iterator[tuple[Node | None, Node]]:
    """Each operator of a plan with the one above it."""
    stack: list[tuple[Node | None, Node]] = [(None, root) for root in json.loads(plan)]
    while stack:
        parent, node = stack.pop()
        yield parent, node
        stack.extend((node, child) for child in node["children"])


def _table(node: Node) -> str:
    """Name of the table that an operator scans; empty if it does not."""
    return str(node["extra_info"].get("Table", "")).rpartition(".")[2].strip('"')


def _filters(parent: Node | None, scan: Node) -> list[str]:
    filters = _texts(scan["extra_info"].get("Filters"))
    if parent is not None and parent["name"] == "FILTER":
        filters += _texts(parent["extra_info"].get("Expression"))
    return [_QUOTED_OR_OPTIONAL.sub(r"\1", text) for text in filters]


def _texts(info: Any) -> list[str]:
    return [text for text in (info if isinstance(info, list) else [info]) if text]


class Pruner:
    """Picks files by the filters of scans.  Holds a DuckDB connection of its own, to compute expressions with."""

    def __init__(self) -> None:
        self._duckdb = duckdb.connect(config={"threads": 1})
        self._duckdb.execute("SET TimeZone = 'UTC'")

    def close(self) -> None:
        """Close the connection."""
        self._duckdb.close()

    @cached_property
    def _functions(self) -> frozenset[str]:
        """Those that say the same whenever they are asked; most queries call none."""
        rows = self._duckdb.execute(
            "SELECT function_name FROM duckdb_functions() GROUP BY function_name "
            "HAVING bool_and(function_type = 'scalar' AND stability = 'CONSISTENT')"
        ).fetchall()
        return frozenset(name for (name,) in rows)

    @cached_property
    def _skeleton(self) -> str:
        """The tree of a query in which only an expression is to be put."""
        ((tree,),) = self._duckdb.execute("SELECT json_serialize_sql('SELECT 1')").fetchall()
        return str(tree)

    def paths(self, files: pa.Table, table: str, scans: Sequence[Sequence[str]] | None) -> list[str]:
        """Paths of the files that may hold a row that one of the scans lets through.

        Args:
            files: rows of `lake_files`.
            table: whose files.
            scans: as in `Plan`.
        """
        condition = _EVERYTHING if scans is None else self._any_of(scans, TIME_COLUMNS[table])
        try:
            return self._select(files, table, condition)
        except duckdb.Error:  # a cast that fails, for example: the query will say so, over all files
            return self._select(files, table, _EVERYTHING)

    def _select(self, files: pa.Table, table: str, condition: str) -> list[str]:
        self._duckdb.register("files", files)
        try:
            query = f"SELECT path FROM files WHERE table_name = $1 AND ({condition}) ORDER BY dt, hour, path"  # noqa: S608  # rendered by DuckDB from its own plan
            return [path for (path,) in self._duckdb.execute(query, [table]).fetchall()]
        finally:
            self._duckdb.unregister("files")

    def _any_of(self, scans: Sequence[Sequence[str]], time_column: str) -> str:
        """One condition for all scans of a table."""
        conditions = [
            " AND ".join(f"({self._condition(node, time_column)})" for node in map(self._parse, filters) if node)
            for filters in scans
        ]
        return " OR ".join(f"({condition or _EVERYTHING})" for condition in conditions) or "FALSE"

    def _parse(self, text: str) -> Node | None:
        """The tree of an expression, or None if it is not one in SQL (EXPLAIN does not quote names, for example)."""
        (answer,) = self._duckdb.execute("SELECT json_serialize_sql($1)", [f"SELECT {text}"]).fetchall()[0]
        statements = json.loads(answer).get("statements", [])
        if len(statements) != 1 or len(statements[0]["node"].get("select_list", [])) != 1:
            return None
        node: Node = statements[0]["node"]["select_list"][0]
        return node

    def _render(self, node: Node, time_column: str = "", by: str = "") -> str:
        """A tree as SQL, a column replaced by another."""
        tree = copy.deepcopy(node)
        for part in _nodes(tree):
            if part["class"] == "COLUMN_REF" and part["column_names"] == [time_column]:
                part["column_names"] = [by]
        skeleton = json.loads(self._skeleton)
        skeleton["statements"][0]["node"]["select_list"] = [tree]
        (sql,) = self._duckdb.execute("SELECT json_deserialize_sql($1)", [json.dumps(skeleton)]).fetchall()[0]
        return str(sql).removeprefix("SELECT ")

    def _condition(self, node: Node, time: str) -> str:
        """What must hold for a file to have a row for which the expression holds."""
        if self._is_plain(node, {DT.name, HOUR.name}):  # the same for all rows of a file
            return self._render(node)
        if node["class"] == "CONJUNCTION":
            word = " AND " if node["type"] == "CONJUNCTION_AND" else " OR "
            return word.join(f"({self._condition(child, time)})" for child in node["children"])
        if node["class"] == "COMPARISON":
            return self._comparison(node, time)
        if node["class"] == "BETWEEN":
            parts = (node["lower"], node["upper"])
            if self._rises(node["input"], time) and all(self._is_plain(part, set()) for part in parts):
                lower = self._reaches("COMPARE_GREATERTHANOREQUALTO", node["input"], parts[0], time)
                return f"{lower} AND {self._reaches('COMPARE_LESSTHANOREQUALTO', node['input'], parts[1], time)}"
        if node["type"] == "COMPARE_IN":
            what, *values = node["children"]
            known = len(values) <= _IN_LIST_MAX and all(self._is_plain(value, set()) for value in values)
            if known and self._rises(what, time):
                return " OR ".join(f"({self._reaches('COMPARE_EQUAL', what, value, time)})" for value in values)
        return _EVERYTHING

    def _comparison(self, node: Node, time: str) -> str:
        kind, left, right = node["type"], node["left"], node["right"]
        if kind not in _MIRRORED:
            return _EVERYTHING
        if self._rises(right, time):
            kind, left, right = _MIRRORED[kind], right, left
        if self._rises(left, time) and self._is_plain(right, set()):
            return self._reaches(kind, left, right, time)
        return _EVERYTHING

    def _reaches(self, kind: str, rising: Node, constant: Node, time: str) -> str:
        """Whether something that rises with time gets there between a file's earliest and latest time."""
        bound = self._render(constant)
        parts = []
        if kind not in {"COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO"}:
            sign = ">" if kind == "COMPARE_GREATERTHAN" else ">="
            parts.append(f"{self._render(rising, time, _TIME_MAX)} {sign} ({bound})")
        if kind not in {"COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO"}:
            sign = "<" if kind == "COMPARE_LESSTHAN" else "<="
            parts.append(f"{self._render(rising, time, _TIME_MIN)} {sign} ({bound})")
        return f"({_TIME_MIN} IS NULL OR ({' AND '.join(parts)}))"

    def _rises(self, node: Node, time: str) -> bool:
        """Whether an expression never falls as time goes on."""
        if node["class"] == "COLUMN_REF":
            return bool(node["column_names"] == [time])
        if node["class"] == "CAST":
            kind = str(node["type_expr"].get("type_name", "")).upper()
            return kind in _TIME_TYPES and not node["type_expr"]["children"] and self._rises(node["child"], time)
        return node["class"] == "FUNCTION" and self._rises_as_function(node, time)

    def _rises_as_function(self, node: Node, time: str) -> bool:
        match node["function_name"], [argument["expression"] for argument in node["arguments"]]:
            case name, [argument]:
                return name in _RISING and self._rises(argument, time)
            case "+" | "-", [argument, constant]:
                return self._is_plain(constant, set()) and self._rises(argument, time)
            case "timezone", [zone, argument]:  # others have hours that come twice
                return zone.get("literal", {}).get("text") == "UTC" and self._rises(argument, time)
            case name, [constant, argument]:
                is_known = name in _RISING_AFTER_CONSTANT and self._is_plain(constant, set())
                return is_known and self._rises(argument, time)
        return False

    def _is_plain(self, node: Node, columns: set[str]) -> bool:
        """Whether an expression has one value for given values of these columns, wherever and whenever computed."""
        parts = list(_nodes(node))
        if any(part["class"] not in _PLAIN for part in parts):
            return False
        named = (part["column_names"] for part in parts if part["class"] == "COLUMN_REF")
        if not all(names in [[column] for column in columns] for names in named):
            return False
        return all(part["function_name"] in self._functions for part in parts if part["class"] == "FUNCTION")


def _nodes(tree: Any) -> Iterator[Node]:
    """Every node of an expression."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for part in tree.values():
            yield from _nodes(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _nodes(part)
