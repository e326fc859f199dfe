"""Believable labelled traffic of its own making: customers of many kinds, and those who harvest the model.

>>> from datetime import UTC, datetime
>>> traffic = Simulation(seed=1, accounts=20, start=datetime(2026, 3, 2, tzinfo=UTC), hours=3)
>>> len(traffic.accounts), len(traffic.labels)
(20, 20)
>>> sorted(next(traffic.events()))[:3]
['account_id', 'api_key_id', 'asn']
"""

from pipeline.simulation.attack import VARIANTS
from pipeline.simulation.events import Event
from pipeline.simulation.identity import Account, Label
from pipeline.simulation.traffic import Simulation

__all__ = ["VARIANTS", "Account", "Event", "Label", "Simulation"]
