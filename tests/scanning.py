"""Reading QR codes as a phone does: by a decoder that is none of ours, from pictures and from terminal characters."""

import subprocess
from pathlib import Path

# Upper and lower half of each character that half blocks are drawn with: whether it is light.
HALVES = {" ": (False, False), "\u2580": (True, False), "\u2584": (False, True), "\u2588": (True, True)}
MODULE_PIXELS = 6


def scan(zbarimg: str, picture: Path) -> list[str]:
    """The texts of the codes in a picture."""
    found = subprocess.run([zbarimg, "--raw", "-q", picture], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def find_drawings(shown: str) -> list[list[str]]:
    """The codes drawn in what a command printed to a pipe: for each its rows of half blocks."""
    drawings: list[list[str]] = []
    inside = False
    for line in shown.splitlines():
        drawn = len(line) > 20 and set(line) <= HALVES.keys()
        if drawn and not inside:
            drawings.append([])
        if drawn:
            drawings[-1].append(line)
        inside = drawn
    return drawings


def photograph(rows: list[str], path: Path) -> Path:
    """Rows of half blocks as a picture (PGM), with a dark terminal around them."""
    width = max(map(len, rows)) + 8
    modules = [[False] * width for _ in range(4)]
    for row in rows:
        halves = [HALVES[character] for character in row]
        for half in (0, 1):
            line = [False] * 4 + [pair[half] for pair in halves]
            modules.append(line + [False] * (width - len(line)))
    modules += [[False] * width for _ in range(4)]
    pixels = b"".join(
        bytes(255 if light else 0 for light in line for _ in range(MODULE_PIXELS)) * MODULE_PIXELS for line in modules
    )
    path.write_bytes(f"P5 {width * MODULE_PIXELS} {len(modules) * MODULE_PIXELS} 255\n".encode() + pixels)
    return path
