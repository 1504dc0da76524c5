"""``kms-fast config``."""

import json
import re
from pathlib import Path

import pytest

from kms_fast.cli.main import run
from kms_fast.cli.settings import load_settings, render_example
from kms_fast.model.settings import HostSettings, host_options


def test_example_is_all_comment_and_all_defaults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "example"]) == 0
    text = capsys.readouterr().out
    assert all(line == "" or line.startswith("#") for line in text.splitlines())
    path = tmp_path / "example.toml"
    unset = "|".join(name for name, option in host_options().items() if option.default is None)
    path.write_text(re.sub(rf"^# (?!{unset})(\w+ = )", r"\1", text, flags=re.MULTILINE))
    loaded = load_settings(path, {}, {})
    assert loaded.settings == HostSettings()
    given = {name for name, source in loaded.sources.items() if source != "default"}
    assert given == {name for name, option in host_options().items() if option.default is not None}


def test_example_shows_every_option() -> None:
    for name in host_options():
        assert f"\n# {name} = " in render_example()


def test_show_tells_value_and_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kms-fast.toml"
    path.write_text('idle_timeout = "30s"\n')
    monkeypatch.setenv("KMS_FAST_CONFIG", str(path))
    monkeypatch.setenv("KMS_FAST_LOW_WATER", "1GiB")
    assert run(["config", "show", "--json", "--listen", "[::1]:0", "--no-record-names"]) == 0
    shown = json.loads(capsys.readouterr().out)["settings"]
    assert list(shown) == list(host_options())
    assert shown["idle_timeout"] == {"value": "30s", "source": f"{path} line 1"}
    assert shown["low_water"] == {"value": "1GiB", "source": "environment KMS_FAST_LOW_WATER"}
    assert shown["listen"] == {"value": ["[::1]:0"], "source": "--listen"}
    assert shown["record_names"] == {"value": False, "source": "--record-names"}
    assert shown["max_waiting"] == {"value": 16_384, "source": "default"}
    # A long value is folded, not cut.
    address = f"https://{'a' * 120}.example"
    assert run(["config", "show", "--activation-url", address]) == 0
    shown_text = capsys.readouterr().out
    assert "30s" in shown_text
    assert shown_text.count("a" * 20) >= 3
    assert "…" not in shown_text


@pytest.mark.parametrize("as_json", [["--json"], []])
def test_show_masks_passwords(as_json: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--store", "postgresql://kms:s3cret@db/kms", *as_json]) == 0
    shown = capsys.readouterr().out
    assert "postgresql://kms:***@db/kms" in shown
    assert "s3cret" not in shown


def test_validate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "kms-fast.toml"
    path.write_text("max_waiting = 5\n")
    assert run(["config", "validate", "--config", str(path)]) == 0
    path.write_text("max_waitting = 5\n")
    assert run(["config", "validate", "--config", str(path)]) == 1
    assert "the nearest is max_waiting." in capsys.readouterr().err
