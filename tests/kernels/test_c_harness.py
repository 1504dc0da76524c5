"""The kernels without the interpreter: known answers, AES itself, sanitizers and valgrind."""

import os
import shutil
import subprocess

import pytest

from .published import records


def run(*command: object, given: str = "") -> str:
    words = [str(word) for word in command]
    # the suite itself may run with a sanitizer preloaded, which valgrind cannot share a process with
    alone = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(words, input=given, env=alone, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("flags", [["-O3"], ["-O0"], ["-O1", "-DKF_PORTABLE"]], ids=["O3", "O0", "portable"])
def test_known_answers(compile_harness, flags):
    out = run(compile_harness(*flags))
    assert "sha256=c ok" in out
    if "-DKF_PORTABLE" in flags:
        assert "aes=none" in out
        assert "shani" not in out


def test_known_answers_under_sanitizers(compile_harness):
    run(compile_harness("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"))


def test_known_answers_under_valgrind(compile_harness):
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    run("valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", compile_harness("-O2"))


def test_nist_aes_known_answers(compile_harness):
    files = ["ECBGFSbox128", "ECBKeySbox128", "ECBVarKey128", "ECBVarTxt128"]
    cases = [case for name in files for case in records(f"nist/{name}.rsp", last="CIPHERTEXT")]
    program = compile_harness("-O2")
    if "aes=none" in run(program):
        pytest.skip("this processor has no AES instructions that the kernels use")
    answers = run(program, "aes", given="".join(f"{case['KEY']} {case['PLAINTEXT']}\n" for case in cases)).split()
    assert answers == [case["CIPHERTEXT"] for case in cases]
    assert len(cases) == 284
