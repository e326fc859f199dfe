"""A rule: when an alert is raised, how grave it is, and what whoever gets it is to do."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Literal, get_args

from pipeline.rules.condition import Condition
from pipeline.rules.example import Example

State = Literal["shadow", "live"]
Severity = Literal["informational", "low", "medium", "high", "critical"]
"""OCSF's words, https://schema.ocsf.io/1.8.0/classes/detection_finding, severity_id 1 to 5."""

STATES: Final[tuple[State, ...]] = get_args(State)
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)

RISK: Final = "risk"
ROW_NAMES: Final = (RISK, "exchanges", "output_tokens")
"""What a condition may name besides features."""

_US_PER_HOUR: Final = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a rule file.

    Attributes:
        name: unique among all rules that run together.
        version: goes up whenever what decides about alerts changes.
        title: one line for people.
        state: `live` alerts are delivered; those of `shadow` are only kept, to be counted.
        severity: in OCSF's words.
        condition: over `risk`, `exchanges`, `output_tokens` and features.
        suppress_hours: an account that raised is silent for so long, by its own clock; > 0.
        atlas: ids of MITRE ATLAS techniques that it speaks of.
        owner: who answers for it.
        runbook: what to do about an alert, in sentences.
        blind_spots: what it misses, and whom it may wrong, in sentences.
        examples: sequences of events that it must fire on, or must not.
        place: file and line where it begins.
    """

    name: str
    version: int
    title: str
    state: State
    severity: Severity
    condition: Condition
    suppress_hours: float
    atlas: tuple[str, ...]
    owner: str
    runbook: str
    blind_spots: str
    examples: tuple[Example, ...] = ()
    place: str = ""

    @property
    def suppress_us(self) -> int:
        """The same in microseconds, at least one."""
        return max(1, round(self.suppress_hours * _US_PER_HOUR))

    @property
    def withholds_learning(self) -> bool:
        """Whether accounts that it alerted must not teach the models what is normal: a live rule on the risk."""
        return self.state == "live" and RISK in self.condition.names

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 of all that decides which alerts there are; titles and texts may change freely."""
        decides = [
            self.name, self.version, self.state, self.suppress_us, self.condition.text,
            sorted(self.condition.constants.items()),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()
