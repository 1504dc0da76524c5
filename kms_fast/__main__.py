"""``python -m kms_fast`` is ``kms-fast``."""

from kms_fast.cli.main import main

main()
