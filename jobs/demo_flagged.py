"""What `stillwatch demo` says at its end of the accounts that the job flagged: who, why, and how right that was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.simulation import Label

FLAGGED: Final = """\
SELECT entity_id AS account_id, strftime(min(raised_at), '%a %H:%M') AS first_raised,
       min(exchanges) AS after_requests, round(max(risk), 2) AS risk
FROM alerts WHERE state = 'live' GROUP BY entity_id ORDER BY max(risk) DESC, account_id"""
"""Each account that a live rule flagged, and when first."""

WHY: Final = """\
SELECT entity_id, array_to_string(reasons, chr(10)) FROM alerts
WHERE state = 'live' ORDER BY risk DESC, entity_id, raised_at LIMIT 1"""
"""The riskiest alert, and why it was raised."""

SHADOW: Final = "SELECT count(DISTINCT entity_id) FROM alerts WHERE state = 'shadow'"

SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Comparison:
    """Flagged accounts beside the simulation's labels.

    Attributes:
        harvesters: accounts that harvest.
        found: those of them that were flagged.
        wrong: honest accounts that were flagged.
        by_variant: flagged and all accounts that harvest, by how they hide.
        by_population: flagged honest accounts, by kind of customer.
    """

    harvesters: int
    found: int
    wrong: int
    by_variant: Mapping[str, tuple[int, int]]
    by_population: Mapping[str, int]

    @classmethod
    def of(cls, flagged: Iterable[str], labels: Iterable[Label]) -> Comparison:
        """Compare accounts with labels."""
        of_account = {label.account_id: label for label in labels}
        attack = [label for label in of_account.values() if label.label == "attack"]
        hits = [of_account[account] for account in flagged]
        found = Counter(label.variant for label in hits if label.label == "attack")
        wrong = Counter(label.population for label in hits if label.label != "attack")
        every = Counter(label.variant for label in attack)
        variants = {variant: (found[variant], count) for variant, count in sorted(every.items())}
        return cls(len(attack), found.total(), wrong.total(), variants, dict(sorted(wrong.items())))

    def in_words(self) -> dict[str, str]:
        """What the figures are, and the figures."""
        variants = ", ".join(f"{name} {found} of {count}" for name, (found, count) in self.by_variant.items())
        wrong = ", ".join(f"{name} {count}" for name, count in self.by_population.items())
        return {
            "harvesters": f"{self.found:,} of {self.harvesters:,} flagged",
            "by variant": variants or "there were none",
            "customers": f"{self.wrong:,} flagged" + (f" ({wrong})" if wrong else ""),
        }
