"""Back ends are chosen at import, by the processor and the environment."""

import json
import os
import subprocess
import sys

import pytest

from kms_fast import _core

from .conftest import ROOT

FALLBACKS = {"KMS_FAST_NO_AESNI": ("aes", "cryptography"), "KMS_FAST_NO_SHANI": ("sha256", "c")}


def backend_with(**variables: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in FALLBACKS} | variables
    script = "import json; from kms_fast import _core; print(json.dumps(_core.backend()))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("variable", FALLBACKS)
def test_environment_forces_the_fallback(variable):
    part, name = FALLBACKS[variable]
    unforced, forced = backend_with(), backend_with(**{variable: "1"})
    assert forced == unforced | {part: name}
    assert backend_with(**{variable: "0"}) == unforced


def test_unknown_backends_are_refused():
    before = _core.backend()
    for wrong in ({"aes": "tables"}, {"sha256": "fast"}, {"aes": before["aes"], "sha256": "aesni"}):
        with pytest.raises(ValueError, match=r"no (AES|SHA-256) back end"):
            _core._use_backend(**wrong)
    assert _core.backend() == before


def test_backend_names_are_the_documented_ones():
    assert _core.backend()["aes"] in {"aesni", "cryptography"}
    assert _core.backend()["sha256"] in {"shani", "c"}
