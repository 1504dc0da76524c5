"""QR codes are read by a decoder that is none of ours: from PNG, from SVG, and as a terminal draws them."""

import io
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from kms_fast.cli import qr
from kms_fast.model.armour import read_armour, write_codes
from kms_fast.model.certificate import CertifiedFamily
from kms_fast.model.compact import Kind, pack_request
from kms_fast.model.exchange import HostKeySecrets, HostRequest
from kms_fast.model.keys import KeyKind, ProductKey
from tests.model.test_compact import ANSWER
from tests.model.test_exchange import make_request
from tests.publishing import PUBLISHER_ID
from tests.scanning import photograph, scan

EIGHT_KEYS = [HostKeySecrets.derive(ProductKey(KeyKind.HOST, 0, 0, bytes([n]) * 10), PUBLISHER_ID) for n in range(8)]
EIGHT_FAMILIES = replace(ANSWER.certificate, families=tuple(CertifiedFamily(n, n, 25, 259_200) for n in range(8)))
FORMS = {
    "request": (Kind.REQUEST, pack_request(HostRequest.parse(make_request()))),
    "request with eight keys": (Kind.REQUEST, pack_request(HostRequest.parse(make_request(*EIGHT_KEYS)))),
    "answer": (Kind.ANSWER, ANSWER.pack()),
    "answer with eight families": (Kind.ANSWER, replace(ANSWER, certificate=EIGHT_FAMILIES).pack()),
}


@pytest.fixture(scope="session")
def zbarimg(require_tool: Callable[[str], str]) -> str:
    return require_tool("zbarimg")


@pytest.mark.parametrize(("kind", "compact"), FORMS.values(), ids=FORMS)
def test_a_png_is_read(zbarimg: str, tmp_path: Path, kind: Kind, compact: bytes) -> None:
    path = tmp_path / "code.png"
    path.write_bytes(qr.render_png(compact))
    (text,) = scan(zbarimg, path)
    assert read_armour(text, kind) == compact


@pytest.mark.parametrize(("kind", "compact"), FORMS.values(), ids=FORMS)
def test_an_svg_is_read(
    zbarimg: str, require_tool: Callable[[str], str], tmp_path: Path, kind: Kind, compact: bytes
) -> None:
    drawing, picture = tmp_path / "code.svg", tmp_path / "code.png"
    drawing.write_bytes(qr.render_svg(compact))
    convert = [require_tool("rsvg-convert"), "--background-color=black", "-o", picture, drawing]
    subprocess.run(convert, check=True, timeout=60)
    (text,) = scan(zbarimg, picture)
    assert read_armour(text, kind) == compact


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (80, 25), (80, 40), (120, 50), (40, 20)])
@pytest.mark.parametrize(("kind", "compact"), FORMS.values(), ids=FORMS)
def test_codes_that_fit_the_terminal_are_read(
    zbarimg: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
    compact: bytes,
    columns: int,
    rows: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(rows))
    codes = qr.write_codes_for_terminal(compact)
    texts = []
    for code in codes:
        lines = qr.draw(code).plain.splitlines()
        assert len(lines) < rows
        assert max(map(len, lines)) <= columns
        texts += scan(zbarimg, photograph(lines, tmp_path / "photo.pgm"))
    assert texts == codes
    assert read_armour(" ".join(reversed(texts)), kind) == compact


def test_a_request_with_one_key_is_one_code_in_30_rows_and_never_more_than_12(monkeypatch: pytest.MonkeyPatch) -> None:
    compact = FORMS["request"][1]
    monkeypatch.setenv("COLUMNS", "80")
    for rows, count in ((24, 2), (29, 2), (30, 1), (40, 1), (3, 12)):
        monkeypatch.setenv("LINES", str(rows))
        assert len(qr.write_codes_for_terminal(compact)) == count


def test_a_terminal_gets_black_and_white_whatever_its_colours_are() -> None:
    drawing = qr.draw(write_codes(FORMS["request"][1])[0])
    file = io.StringIO()
    Console(file=file, force_terminal=True, color_system="standard", no_color=False).print(drawing, crop=False)
    rows = file.getvalue().splitlines()
    assert len(rows) == len(drawing.plain.splitlines())
    # Bright white on black: light modules are the characters, dark ones their background.
    assert all(row.startswith("\x1b[97;40m") and row.endswith("\x1b[0m") for row in rows)
