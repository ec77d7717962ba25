"""Settings come from the right place and wrong ones are named."""

from pathlib import Path

import pytest

from tvops.errors import SettingsError
from tvops.settings import load_settings
from tvops.shipped import resource


def test_precedence(tmp_path: Path) -> None:
    file = tmp_path / "tvops.yaml"
    file.write_text("gateway_port: 1\nmarket_port: 2\nspeed: 3\nprofile: ull\n")
    environment = {"TVOPS_GATEWAY_PORT": "11", "TVOPS_MARKET_PORT": "12"}
    settings = load_settings({"gateway_port": 21, "feed": None}, environment, file)
    assert (settings.gateway_port, settings.market_port, settings.speed) == (21, 12, 3.0)
    assert settings.batch_interval_ms == 10  # the profile's
    assert settings.feed == "sim"  # the default


def test_names_that_operators_know() -> None:
    settings = load_settings(
        {}, {"REDIS_MAX_CONNECTIONS": "7", "SLOW_CLIENT_THRESHOLD": "3", "TVOPS_SYMBOLS": "A, B"}
    )
    assert (settings.redis_max_connections, settings.slow_client_threshold) == (7, 3)
    assert settings.symbols == ("A", "B")


@pytest.mark.parametrize(
    "arguments, environment, named",
    [
        ({"gateway_port": 0}, {}, "gateway_port: 0 from the command line"),
        ({}, {"TVOPS_SPEED": "fast"}, "speed: 'fast' from the environment"),
        ({"no_such": 1}, {}, "no_such: no such setting"),
        ({"knobs_seconds": 1e-9}, {}, "knobs_seconds: 1e-09 from the command line"),
        ({"profile": "../no/such/x"}, {}, "profile: there is no profile"),
        ({"services": ("x",)}, {}, "services"),
        ({}, {"TVOPS_HOST": ""}, "host: '' from the environment"),
        ({}, {"TVOPS_CONFIG": "/does/not/exist"}, "/does/not/exist"),
    ],
)
def test_the_wrong_key_is_named(arguments: dict[str, object], environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as caught:
        load_settings(arguments, environment)
    assert "\n" not in str(caught.value)


def test_a_password_in_a_url_is_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, {"TVOPS_GATEWAY_PORT": "redis://u:secret@h"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("profile", sorted(p.stem for p in resource("profiles").glob("*.yaml")))
def test_shipped_profiles_are_valid(profile: str) -> None:
    assert load_settings({"profile": profile}, {}).profile == profile


def test_keys_are_required_beyond_loopback_and_dev() -> None:
    assert not load_settings({}, {}).keys_required
    assert load_settings({"host": "0.0.0.0"}, {}).keys_required
    assert load_settings({"profile": "prod"}, {}).keys_required


def test_a_variable_that_is_no_setting_is_told(caplog: pytest.LogCaptureFixture) -> None:
    load_settings({}, {"TVOPS_GATEWAY_PROT": "1", "TVOPS_API_KEY": "x", "TVOPS_SPEED": "2"})
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["TVOPS_GATEWAY_PROT"]
