"""``kms-fast explain``."""

import difflib

import click

from kms_fast.cli.output import Output, json_option
from kms_fast.results import BY_NAME, RESULTS, Result


@click.command
@click.argument("code", required=False)
@json_option
def command(code: str | None, out: Output) -> None:
    """Say what a result CODE means and what to do; without CODE, list all.

    CODE is hexadecimal with or without 0x, a signed or unsigned decimal number, or a name.

    \b
    Examples:
      kms-fast explain 0xC004F038
      kms-fast explain CLOCKS_DIFFER
    """
    if code is None:
        rows = RESULTS.values()
        out.result({"results": [_fields(row) for row in rows]}, "\n".join(f"{row.hex}  {row.name}" for row in rows))
        return
    result = find_code(code)
    text = f"{result.hex} {result.name}\n{result.meaning}\nWhat to do: {result.cure}"
    out.result(_fields(result), text)


def find_code(text: str) -> Result:
    """The row of the table that ``text`` names.

    Raises:
        click.BadParameter: no row has this code or name.
    """
    name = text.strip().upper().replace("-", "_")
    if name in BY_NAME:
        return BY_NAME[name]
    for base in (16, 10):
        try:
            number = int(text, base)
        except ValueError:
            continue
        # Tools of other systems print codes as signed 32-bit numbers.
        if (number & 0xFFFFFFFF) in RESULTS and -(1 << 31) <= number < 1 << 32:
            return RESULTS[number & 0xFFFFFFFF]
    near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise click.BadParameter(f"there is no result {text}.{hint}", param_hint="CODE")


def _fields(result: Result) -> dict[str, str]:
    return {"code": result.hex, "name": result.name, "meaning": result.meaning, "cure": result.cure}
