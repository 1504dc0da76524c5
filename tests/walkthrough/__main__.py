"""``python -m tests.walkthrough [--record]``; see the package's text."""

import sys

from tests.walkthrough import PAGE, Differs, walk

if __name__ == "__main__":
    record = "--record" in sys.argv
    try:
        page = walk(record=record, say=True)
    except Differs as error:
        sys.exit(f"not as docs/walkthrough.md shows it: {error}")
    if record:
        PAGE.write_text(page, encoding="utf-8")
