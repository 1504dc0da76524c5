"""Build of the compiled core; everything else is declared in pyproject.toml.

KMS_FAST_DEBUG=1     bounds checks, line tracing, assertions, -O0
KMS_FAST_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("KMS_FAST_DEBUG") == "1"
SANITIZE = os.environ.get("KMS_FAST_SANITIZE") == "1"

# -fwrapv and friends come from the interpreter; instruction sets beyond the baseline are chosen at run time.
compile_args = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-parameter"]
link_args = []
if SANITIZE:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    compile_args += [*flags, "-O1", "-g"]
    link_args += flags
elif DEBUG:
    compile_args += ["-O0", "-g"]
else:
    compile_args += ["-O3"]

core = Extension(
    "kms_fast._core",
    sources=["kms_fast/_core.pyx"],
    depends=sorted(map(str, Path("kms_fast/_core").iterdir())),
    include_dirs=["kms_fast/_core"],
    define_macros=[("CYTHON_TRACE_NOGIL", "1")] if DEBUG else [],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
)

setup(
    ext_modules=cythonize(
        [core],
        compiler_directives={
            "language_level": "3str",
            "boundscheck": DEBUG,
            "wraparound": False,
            "initializedcheck": DEBUG,
            "cdivision": True,
            "linetrace": DEBUG,
            "auto_pickle": False,  # sessions and keys are not for copying
            "embedsignature": True,
            "embedsignature.format": "python",
        },
    )
)
