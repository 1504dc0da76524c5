"""The checkout that the benchmarks lie in: importing this makes it the kms_fast that they and their processes measure.

Without it a program in this folder would measure whatever kms_fast is installed.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
