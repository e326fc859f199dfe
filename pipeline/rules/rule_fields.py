"""The fields of a rule, as a file has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pipeline.rules.fields import LINE, NAME, TEXT, Field, is_line, is_number, is_tables, is_text, is_whole
from pipeline.rules.rule import SEVERITIES, STATES

_VERSION_MAX: Final = (1 << 31) - 1
_HOURS_MAX: Final = 8_760
_ATLAS: Final = re.compile(r"AML\.T\d{4}(\.\d{3})?")


def _is_atlas(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and _ATLAS.fullmatch(one) for one in value)


RULE_FIELDS: Final[Mapping[str, Field]] = {
    "name": Field(
        lambda value: isinstance(value, str) and NAME.fullmatch(value) is not None,
        "up to 63 lower-case letters, digits and _, a letter first",
    ),
    "version": Field(lambda value: is_whole(value, 1, _VERSION_MAX), "a whole number from 1 on"),
    "title": Field(is_line, LINE),
    "state": Field(lambda value: value in STATES, " or ".join(f'"{state}"' for state in STATES)),
    "severity": Field(
        lambda value: value in SEVERITIES, "one of " + ", ".join(f'"{severity}"' for severity in SEVERITIES)
    ),
    "condition": Field(lambda value: isinstance(value, str), 'a text, for example "risk >= 0.9 and exchanges >= 8"'),
    "suppress_hours": Field(
        lambda value: is_number(value) and 0 < value <= _HOURS_MAX,
        f"a number of hours, above 0 and at most {_HOURS_MAX:,}",
    ),
    "atlas": Field(_is_atlas, 'a list of MITRE ATLAS ids, for example ["AML.T0024.002"]; it may be empty'),
    "owner": Field(is_line, LINE),
    "runbook": Field(is_text, TEXT),
    "blind_spots": Field(is_text, TEXT),
    "example": Field(is_tables, "tables, each beginning with a line [[rule.example]]", needed=False),
}
"""The fields of a rule."""
