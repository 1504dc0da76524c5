"""Requests and answers of the offline exchange in the forms they travel in: file, text to paste, QR codes."""

import codecs
import functools
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from kms_fast.cli import qr
from kms_fast.cli.output import Output, stdout_console
from kms_fast.files import MAX_READ_BYTES, PUBLIC, read_bounded, write_atomically
from kms_fast.model.armour import read_armour, write_block
from kms_fast.model.compact import CompactAnswer, Kind, unpack_request
from kms_fast.model.document import malformed

STANDARD_STREAM: Final = Path("-")
# An answer's file has the catalog in it.
_LIMIT_BYTES: Final = {Kind.REQUEST: 1 << 20, Kind.ANSWER: MAX_READ_BYTES}
_TEXT_LIMIT_BYTES: Final = 1 << 20
# How files begin that show a code: people have them where the text should be.
_PICTURES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"<svg", b"<?xml")


@dataclass(frozen=True, slots=True)
class Forms:
    """The forms that a command was told to write; paths are None for those that it was not."""

    out: Path | None
    text: Path | None
    qr_png: Path | None
    qr_svg: Path | None
    qr: bool

    @property
    def name(self) -> str:
        """What a next command may call what was written: a file's name, or ``-`` for what is pasted."""
        path = self.out or self.text
        return shlex.quote(path.name) if path else "-"

    @property
    def answer_options(self) -> str:
        """The options with which the answer to a request goes the way that the request went."""
        if self.out:
            return "--out host.answer"
        return "--qr" if self.qr and not self.text else "--text -"

    def write(self, data: bytes, compact: bytes) -> dict[str, Any]:
        """Write all files; returns the fields for ``--json``. Raises OSError."""
        fields: dict[str, Any] = {}
        if self.out:
            write_atomically(self.out, data, mode=PUBLIC)
            fields["file"] = self.out
        if self.text == STANDARD_STREAM:
            fields["text"] = write_block(compact)
        elif self.text:
            write_atomically(self.text, write_block(compact).encode(), mode=PUBLIC)
            fields["text_file"] = self.text
        for name, path, render in (("qr_png", self.qr_png, qr.render_png), ("qr_svg", self.qr_svg, qr.render_svg)):
            if path:
                write_atomically(path, render(compact), mode=PUBLIC)
                fields[name] = path
        if self.qr:
            fields["qr_codes"] = qr.write_codes_for_terminal(compact)
        return fields

    def show(self, out: Output, fields: Mapping[str, Any], message: str) -> None:
        """Print a command's result: the text if it goes to stdout, the ``message``, and the codes last."""
        text = f"{fields['text']}\n" if "text" in fields else ""
        out.result(fields, text + message)
        if self.qr and not out.as_json:
            _show_codes(fields["qr_codes"], out)

    def list_files(self, fields: Mapping[str, Any]) -> str:
        """What was written, in words that end a sentence."""
        files = [str(fields[name]) for name in ("file", "text_file", "qr_png", "qr_svg") if name in fields]
        return f"; wrote {', '.join(files)}." if files else "."


def _show_codes(codes: Sequence[str], out: Output) -> None:
    """Draw codes, in a terminal one at a time: a small one holds no two of them."""
    if not qr.fits(codes[0]):
        columns, rows = qr.terminal_size()
        out.warning(
            f"No QR code is drawn: even {len(codes)} small ones would not fit into {columns} columns and {rows} rows. "
            "Make the window larger, or write a picture with --qr-png FILE or --qr-svg FILE, and run this again."
        )
        return
    for number, code in enumerate(codes, 1):
        print(f"Code {number} of {len(codes)}: scan it, and send on the text that the phone shows.", flush=True)
        stdout_console().print(qr.draw(code), crop=False)
        if number < len(codes) and sys.stdin.isatty() and sys.stdout.isatty():
            print(f"Press Enter for code {number + 1} of {len(codes)}.", end="", flush=True)
            sys.stdin.readline()


def forms_options(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add ``--out``, ``--text``, ``--qr``, ``--qr-png`` and ``--qr-svg``, and hand the command `Forms` as ``forms``."""
    path = click.Path(dir_okay=False, path_type=Path)

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @click.option("--out", "out_path", type=path, help=f"File to write the {what} to.")
        @click.option(
            "--text",
            type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
            metavar="FILE|-",
            help="Write it as text to paste, to a file or with - to the terminal.",
        )
        @click.option("--qr", "show_qr", is_flag=True, help="Show it as QR codes in the terminal.")
        @click.option("--qr-png", type=path, help="Write it as a QR code, as a PNG picture.")
        @click.option("--qr-svg", type=path, help="Write it as a QR code, as an SVG picture.")
        @functools.wraps(function)
        def command(
            *args: Any,
            out_path: Path | None,
            text: Path | None,
            show_qr: bool,
            qr_png: Path | None,
            qr_svg: Path | None,
            **options: Any,
        ) -> None:
            forms = Forms(out_path, text, qr_png, qr_svg, show_qr)
            if not (out_path or text or qr_png or qr_svg or show_qr):
                raise click.UsageError(f"Say where the {what} goes: --out, --text, --qr, --qr-png or --qr-svg.")
            function(*args, forms=forms, **options)

        return command

    return decorate


def read_request(source: Path, out: Output) -> bytes:
    """The host request file behind ``source``, in whichever form it is. Raises OSError or `ConfigurationError`."""
    data = _read(source, Kind.REQUEST, out)
    return data if _is_json(data) else unpack_request(_unwrap(data, Kind.REQUEST)).to_json()


def read_answer(source: Path, out: Output) -> bytes | CompactAnswer:
    """The host answer behind ``source``, as a file's bytes or compact. Raises OSError or `ConfigurationError`."""
    data = _read(source, Kind.ANSWER, out)
    return data if _is_json(data) else CompactAnswer.unpack(_unwrap(data, Kind.ANSWER))


def _read(source: Path, kind: Kind, out: Output) -> bytes:
    limit_bytes = _LIMIT_BYTES[kind]
    if source != STANDARD_STREAM:
        return read_bounded(source, limit_bytes).removeprefix(codecs.BOM_UTF8)
    if sys.stdin.isatty():
        out.warning(f"Paste the {kind.description} (a block of text, or what codes say), then press Enter and Ctrl-D:")
    data = sys.stdin.buffer.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise malformed(f"What was read is longer than any {kind.description}.")
    return data.removeprefix(codecs.BOM_UTF8)


def _is_json(data: bytes) -> bool:
    return data.lstrip()[:1] == b"{"


def _unwrap(data: bytes, kind: Kind) -> bytes:
    """The compact form in text. Raises `ConfigurationError` that says what the data is instead, as far as it can."""
    if not data.strip():
        raise malformed(f"There is no {kind.description}: nothing was read.")
    if data.lstrip().startswith(_PICTURES):
        raise malformed(
            f"This is a picture: scan the code in it with a phone, and give the text that it shows as the "
            f"{kind.description}."
        )
    if len(data) > _TEXT_LIMIT_BYTES:
        raise malformed(f"The text is longer than any {kind.description}.")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return read_armour(data.decode("utf-16" if utf16 else "utf-8", "replace"), kind)
