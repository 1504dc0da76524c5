"""Reading settings: precedence, unknown names, wrong values, and where each complaint points."""

from pathlib import Path
from typing import Any

import pytest

from kms_fast.cli.settings import OTHER_VARIABLES, load_settings
from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.model.settings import HostSettings


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "kms-fast.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def complaint(
    path: Path | None = None, flags: dict[str, Any] | None = None, environ: dict[str, str] | None = None
) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, flags or {}, environ or {})
    return caught.value.message


def test_nothing_given_is_all_defaults() -> None:
    loaded = load_settings(None, {}, {"PATH": "/bin", **dict.fromkeys(OTHER_VARIABLES, "1")})
    assert loaded.settings == HostSettings()
    assert set(loaded.sources.values()) == {"default"}


def test_flag_beats_environment_beats_file_beats_default(write: Any) -> None:
    path = write('max_waiting = 1\nmax_connections = 1\nretention = "2d"\n')
    loaded = load_settings(path, {"max_waiting": "3"}, {"KMS_FAST_MAX_WAITING": "2", "KMS_FAST_MAX_CONNECTIONS": "2"})
    assert loaded.settings == HostSettings(max_waiting=3, max_connections=2, retention_s=2 * 86_400)
    assert loaded.sources["max_waiting"] == "--max-waiting"
    assert loaded.sources["max_connections"] == "environment KMS_FAST_MAX_CONNECTIONS"
    assert loaded.sources["retention"] == f"{path} line 3"
    assert loaded.sources["log_level"] == "default"


def test_lists_and_switches_in_each_place(write: Any) -> None:
    path = write('listen = ["127.0.0.1:0", "[::1]:0"]\nrecord_names = false\n')
    environ = {"KMS_FAST_LISTEN": "127.0.0.1:0, [::1]:0", "KMS_FAST_RECORD_NAMES": "false"}
    flags = {"listen": ("127.0.0.1:0", "[::1]:0"), "record_names": False}
    expected = HostSettings(listen=("127.0.0.1:0", "[::1]:0"), record_names=False)
    assert load_settings(path, {}, {}).settings == expected
    assert load_settings(None, {}, environ).settings == expected
    assert load_settings(None, flags, {}).settings == expected


def test_unknown_names_tell_the_nearest(write: Any) -> None:
    path = write("\nmax_waitin = 1\n")
    assert complaint(path) == f"{path} line 2: there is no option max_waitin; the nearest is max_waiting."
    assert "the nearest is max_waiting" in complaint(write("[max_waitings]\nx = 1\n"))
    assert complaint(environ={"KMS_FAST_RETENTON": "1d"}).endswith("the nearest is KMS_FAST_RETENTION.")
    assert complaint(environ={"KMS_FAST_HOMES": "x"}).endswith("the nearest is KMS_FAST_HOME.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('max_waiting = "many"', 'FILE line 1: max_waiting = "many": expected a whole number from 1 to 1048576'),
        ("max_waiting = 0", "FILE line 1: max_waiting = 0: expected a whole number from 1 to 1048576"),
        ("\n\nlisten = [1688]", "FILE line 3: listen = [1688]: expected a list of addresses"),
        ("listen = []", "FILE line 1: listen = []: expected a list of addresses"),
        ("retention = 30", "FILE line 1: retention = 30: expected a whole number and one of ms, s, m, h, d"),
        ('retention = "1ms"', 'FILE line 1: retention = "1ms": 1ms is not a whole number of s, from 1m to 365d'),
        ('log_level = "loud"', 'FILE line 1: log_level = "loud": expected one of debug, info, warning, error'),
        ('listen = ["1.2.3.4"]', "'1.2.3.4' is not an address and a port: write 1.2.3.4:PORT."),
        ("keep_records = '1h'", 'FILE line 1: keep_records = "1h": expected at least 1d'),
        ("web = '8080'", "'8080' is not an address and a port: write ADDRESS:8080."),
        ("web = 8080", 'FILE line 1: web = 8080: expected a text such as "127.0.0.1:8080"'),
        ("dns_domain = ['example.com:1']", "'example.com:1' is not a domain: write DOMAIN or DOMAIN:PRIORITY:WEIGHT"),
        ("dns_domain = 'example.com'", 'FILE line 1: dns_domain = "example.com": expected a list of domains'),
        ("dns_target = 'kms'", "'kms' is not a full name such as kms.example.com"),
        ("dns_server = 'a b'", "'a b' is not a name server: write ADDR or ADDR:PORT"),
        ("dns_port = 0", "FILE line 1: dns_port = 0: expected a whole number from 1 to 65535"),
        ('record_names = "maybe"', 'FILE line 1: record_names = "maybe": expected true or false'),
        ('retention = "1d"\nrenewal_interval = "7d"', "renewal_interval 7d is too long for retention 1d"),
        ("\nmax_waiting 5", "FILE is not TOML: Expected '=' after a key in a key/value pair (at line 2, column 13)"),
    ],
)
def test_wrong_values_tell_option_and_place(text: str, said: str, write: Any) -> None:
    path = write(text)
    assert said.replace("FILE", str(path)) in complaint(path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("workers", "banana", "--workers banana: expected a whole number from 1 to 256."),
        ("workers", "0", "--workers 0: expected a whole number from 1 to 256."),
        ("keep_records", "1h", "--keep-records 1h: expected at least 1d."),
        ("web", "8080", "--web 8080: '8080' is not an address and a port: write ADDRESS:8080."),
        ("listen", ("1.2.3.4",), "--listen 1.2.3.4: '1.2.3.4' is not an address and a port: write 1.2.3.4:PORT."),
        (
            "activation_url",
            "a.example",
            "--activation-url a.example: 'a.example' is not the address of an activation service: write https://NAME.",
        ),
        ("store", "s3cret", "--store: not a PostgreSQL URL: write postgresql://USER@HOST:PORT/DATABASE."),
    ],
)
def test_wrong_flags_are_wrong_commands(name: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {name: value}, {})
    assert (caught.value.message, caught.value.result.name) == (said, "COMMAND_INVALID")
    text = ",".join(value) if isinstance(value, tuple) else value
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {}, {f"KMS_FAST_{name.upper()}": text})
    assert caught.value.message.startswith(f"KMS_FAST_{name.upper()}")
    assert caught.value.message.endswith(said.partition(": ")[2])
    assert caught.value.result.name == "CONFIGURATION_INVALID"


PORT = "not a PostgreSQL URL: the port is a number from 1 to 65535"


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("127.0.0.1:99999/db", PORT),
        ("127.0.0.1:-1/db", PORT),
        ("127.0.0.1:0/db", PORT),
        ("h:abc/db", PORT),
        ("[::1]:abc/db", PORT),
        ("h1:5432,h2:65536/db", PORT),
        ("h/db?port=99999", PORT),
        ("h/db?target_session_attrs=foo", "target_session_attrs is one of any, prefer-standby, primary, "),
    ],
)
def test_a_store_that_no_server_can_be_is_refused_at_once(rest: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {"store": f"postgresql://u:s3cret@{rest}"}, {})
    assert said in caught.value.message
    assert "s3cret" not in caught.value.message
    assert caught.value.result.name == "COMMAND_INVALID"


@pytest.mark.parametrize(
    "rest",
    ["h", "h:5432/db", "h1:1,h2:65535,h3/db", "[::1]/db", "[::1]:5432,h/db?target_session_attrs=any", "h/db?port=1,2"],
)
def test_a_store_may_have_ports_or_none(rest: str) -> None:
    url = f"postgresql://u:s3cret@{rest}"
    assert load_settings(None, {"store": url}, {}).settings.store == url


def test_flags_of_some_settings_are_named_without_their_prefix(write: Any) -> None:
    path = write('dns_ttl = "1h"\n')
    loaded = load_settings(path, {"dns_ttl": "5m"}, {}, prefix="dns_")
    assert (loaded.settings.dns_ttl_s, loaded.sources["dns_ttl"]) == (300, "--ttl")
    with pytest.raises(ConfigurationError, match=r"^--ttl 1s: expected from 30s to 7d\.$"):
        load_settings(None, {"dns_ttl": "1s"}, {}, prefix="dns_")


def test_only_what_fights_is_named(write: Any) -> None:
    path = write('retention = "1d"\n')
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {"renewal_interval": "7d", "workers": "2"}, {})
    assert caught.value.message.startswith(f'--renewal-interval 7d, {path} line 1: retention = "1d": ')
    assert caught.value.result.name == "CONFIGURATION_INVALID"
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {"renewal_interval": "60d"}, {})
    assert caught.value.result.name == "COMMAND_INVALID"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KmsFastError, match=r"none\.toml: No such file") as caught:
        load_settings(tmp_path / "none.toml", {}, {})
    assert caught.value.result.name == "STORAGE_FAILED"
