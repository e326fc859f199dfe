"""`stillwatch verdict load`: a file of verdicts, read and checked line by line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline.counted import counted
from pipeline.decisions import Verdict
from pipeline.errors import ConfigError
from pipeline.io.catalog import Catalog
from pipeline.io.clock import SystemClock
from pipeline.io.desk.judging import Refused, prepare
from pipeline.io.lake import Lake
from pipeline.verdict_lines import Line, read_csv

STDIN: Final = "-"
WRONG_SHOWN: Final = 20
_NAME_CHARS_MAX: Final = 100


def read_file(name: str, by: str) -> list[Line]:
    """Read a file of verdicts.

    Raises:
        ConfigError: it cannot be read, or its first line is wrong.
    """
    source = f"csv:{'standard input' if name == STDIN else Path(name).name[:_NAME_CHARS_MAX]}"
    try:
        if name == STDIN:
            return read_csv(sys.stdin, source, by)
        with Path(name).open(encoding="utf-8-sig", newline="") as lines:
            return read_csv(lines, source, by)
    except OSError as error:
        raise ConfigError(f"--csv {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"--csv {name}: not UTF-8: {error.reason} at byte {error.start}") from None
    except ConfigError as error:
        raise ConfigError(f"--csv {name}: {error}") from None


def checked(lake: Lake, catalog: Catalog, name: str, lines: Sequence[Line], *, anyway: bool) -> list[Verdict]:
    """The verdicts of all lines.

    Raises:
        ConfigError: a line is wrong; all of those that are wrong are named.
    """
    judgements = {line.number: line.judgement for line in lines if line.judgement is not None}
    prepared = prepare(
        lake, catalog, list(judgements.values()), SystemClock().now_us(), anyway=anyway, unread_too=anyway
    )
    wrong = {line.number: line.wrong for line in lines if line.wrong}
    for number, one in zip(judgements, prepared, strict=True):
        if isinstance(one, Refused):
            wrong[number] = one.why
    if wrong:
        said = [f"  line {number}: {wrong[number]}" for number in sorted(wrong)[:WRONG_SHOWN]]
        if len(wrong) > WRONG_SHOWN:
            said.append(f"  and {len(wrong) - WRONG_SHOWN:,} more")
        count = counted(len(wrong), "line is", "lines are")
        raise ConfigError("\n".join([f"--csv {name}: {count} wrong, and no verdict was given", *said]))
    return [one for one in prepared if isinstance(one, Verdict)]
