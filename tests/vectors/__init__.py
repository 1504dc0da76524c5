"""Test vectors of docs/protocol.md, as JSON, and the program that makes them: ``python -m tests.vectors.generate``."""
