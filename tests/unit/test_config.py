"""Settings: where they come from, and what is said of one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import read_settings
from pipeline.errors import ConfigError


def test_flags_come_before_the_environment_and_that_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stillwatch.toml"
    file.write_text('topic = "file"\ngroup = "file"\nlake = "file"\n[kafka]\nclient_id = "file"\nssl_cafile = "file"\n')
    monkeypatch.setenv("STILLWATCH_TOPIC", "environment")
    monkeypatch.setenv("stillwatch_group", "environment")
    monkeypatch.setenv("STILLWATCH_KAFKA__CLIENT_ID", "environment")
    settings = read_settings(file, topic="flag", kafka={"check_crcs": "flag"})
    assert (settings.topic, settings.group, settings.lake, settings.start) == (
        "flag",
        "environment",
        "file",
        "earliest",
    )
    assert settings.kafka == {"client_id": "environment", "ssl_cafile": "file", "check_crcs": "flag"}


@pytest.mark.parametrize(
    ("name", "said"),
    (
        ("STILLWATCH_BOOTSTRAPS", r"STILLWATCH_BOOTSTRAPS is no setting; did you mean STILLWATCH_BOOTSTRAP\?$"),
        ("STILLWATCH_TOPC", r"did you mean STILLWATCH_TOPIC\?$"),
        ("STILLWATCH_FILE_AGE", r"did you mean STILLWATCH_FILE_AGE_S\?$"),
        ("STILLWATCH_CONFG", r"did you mean STILLWATCH_CONFIG\?$"),
        ("STILLWATCH_KAFKA_", r"did you mean STILLWATCH_KAFKA\?$"),
        ("stillwatch_topc", r"stillwatch_topc is no setting; did you mean STILLWATCH_TOPIC\?$"),
        ("STILLWATCH_TOPIC__NAME", r"STILLWATCH_TOPIC__NAME is no setting"),
        ("STILLWATCH_XYZ", r"STILLWATCH_XYZ is no setting; known after STILLWATCH_: BOOTSTRAP, .*, KAFKA__…$"),
        ("STILLWATCH_", r"STILLWATCH_ is no setting"),
    ),
)
def test_a_variable_that_is_no_setting_is_named_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigError, match=said) as error:
        read_settings()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    (
        "STILLWATCH_CONFIG", "STILLWATCH_TEST_KAFKA", "STILLWATCH_SERVICE_HOST", "STILLWATCH_SERVICE_PORT_HTTP",
        "STILLWATCH_PORT", "STILLWATCH_PORT_8080_TCP_ADDR", "STILLWATCH_SQL_SERVICE_PORT", "STILLWATCHING",
    ),
)  # fmt: skip
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = read_settings()
    monkeypatch.setenv(name, "tcp://10.0.0.1:8080")
    assert read_settings() == before


def test_an_unknown_setting_of_the_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "stillwatch.toml"
    file.write_text('topc = "x"\n')
    with pytest.raises(ConfigError, match=r"setting topc is unknown \(in .*stillwatch.toml\); known: bootstrap,"):
        read_settings(file)
