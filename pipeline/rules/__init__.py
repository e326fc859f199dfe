"""Rules as data: what turns features and scores into alerts.

A rule file is TOML (docs/rules.md); `shipped.toml` beside this file is the one that runs when no other is named.

>>> rule, *_ = read_rules(None, known=["one_shot_share"], text='''
... [[rule]]
... name = "one_shot"
... version = 1
... title = "Nearly all requests are single-turn"
... state = "shadow"
... severity = "low"
... condition = "one_shot_share > 0.95 and exchanges >= 64"
... suppress_hours = 24
... atlas = []
... owner = "detection"
... runbook = "Look at its prompts."
... blind_spots = "Single-turn products look the same."
... ''')
>>> rule.condition.names
('one_shot_share', 'exchanges')
"""

from pipeline.rules.condition import Condition, ConditionError, read_condition
from pipeline.rules.example import Example
from pipeline.rules.reading import RuleFiles, read_rule_files, read_rules, shipped_text
from pipeline.rules.rule import RISK, ROW_NAMES, SEVERITIES, STATES, Rule

__all__ = [
    "RISK",
    "ROW_NAMES",
    "SEVERITIES",
    "STATES",
    "Condition",
    "ConditionError",
    "Example",
    "Rule",
    "RuleFiles",
    "read_condition",
    "read_rule_files",
    "read_rules",
    "shipped_text",
]
