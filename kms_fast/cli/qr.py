"""QR codes of requests and answers: in a terminal as half blocks, as PNG and as SVG."""

import io
import shutil
from typing import TYPE_CHECKING, Final

from kms_fast.model.armour import write_codes

if TYPE_CHECKING:
    from rich.text import Text
    from segno import QRCode

# A quiet zone of 4 modules is the standard's; scanners do with 2, and a terminal has few rows.
_TERMINAL_BORDER: Final = 2
# The prompt after a code; its caption may scroll away.
_PROMPT_ROWS: Final = 1
_PIPE_SIZE: Final = (80, 40)
_MOST_CODES: Final = 12
_SCALE: Final = 8


def render_png(compact: bytes) -> bytes:
    """One code of a compact form as a PNG picture, a module 8 pixels wide."""
    return _render(compact, "png")


def render_svg(compact: bytes) -> bytes:
    """One code of a compact form as an SVG picture."""
    return _render(compact, "svg")


def write_codes_for_terminal(compact: bytes) -> list[str]:
    """The texts of as few codes as fit into the terminal, each by itself; 12 where that takes more."""
    for count in range(1, _MOST_CODES + 1):
        codes = write_codes(compact, count)
        if fits(codes[0]):
            break
    return codes


def fits(code: str) -> bool:
    """Whether the terminal shows a code whole; a pipe has 80 columns and 40 rows."""
    columns, rows = terminal_size()
    width, height = _make(code).symbol_size(border=_TERMINAL_BORDER)
    return width <= columns and (height + 1) // 2 + _PROMPT_ROWS <= rows


def terminal_size() -> tuple[int, int]:
    """Columns and rows."""
    return shutil.get_terminal_size(_PIPE_SIZE)


def draw(code: str) -> "Text":
    """A code in half blocks, light modules white and dark ones black whatever the terminal's colours are.

    Without colours (in a pipe, under NO_COLOR) light modules are what is drawn, as dark terminals need it.
    """
    from rich.text import Text

    drawn = io.StringIO()
    _make(code).terminal(drawn, border=_TERMINAL_BORDER, compact=True)
    return Text(drawn.getvalue().rstrip("\n"), style="bright_white on black", no_wrap=True, overflow="ignore", end="\n")


def _render(compact: bytes, kind: str) -> bytes:
    import segno

    (code,) = write_codes(compact)
    file = io.BytesIO()
    segno.make_qr(code, error="M").save(file, kind=kind, scale=_SCALE, light="white")
    return file.getvalue()


def _make(code: str) -> "QRCode":
    import segno

    # On a screen nothing gets dirty: the lowest level of error correction makes the smallest code.
    return segno.make_qr(code, error="L")
