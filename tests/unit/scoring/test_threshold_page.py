"""docs/detection.md names the threshold and the risks that ship."""

import json
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_page_on_detection_names_the_threshold_and_the_calibration_that_ship() -> None:
    page = " ".join((ROOT / "docs" / "detection.md").read_text(encoding="utf-8").split())
    rules = tomllib.loads((ROOT / "pipeline" / "rules" / "shipped.toml").read_text(encoding="utf-8"))
    calibration = json.loads(
        (ROOT / "pipeline" / "scoring" / "shipped" / "calibration.json").read_text(encoding="utf-8")
    )
    exceeded = calibration["combination"]["exceeded"]

    told = re.search(
        r"`risk_high` alerts from a risk of (\S+) on\..*?0\.5 % reached (\d\.\d\d) and 0\.1 % reached (\d\.\d\d)\.",
        page,
    )

    assert told is not None
    assert float(told[1]) == rules["constants"]["alert_risk"]
    assert told[2] == f"{exceeded['0.005']:.2f}"
    assert told[3] == f"{exceeded['0.001']:.2f}"
