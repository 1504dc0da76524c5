"""Makes the files of this folder again, byte for byte: ``python -m tests.vectors.generate``."""

import json
from pathlib import Path
from typing import Any

from tests.vectors import answers, exchange, flips, machine_activation, messages, product_keys

FOLDER = Path(__file__).parent

# File: what it is, what makes its vectors.
FILES = {
    "keys": ("Keys of a SKU from the secret of its client setup key.", messages.keys),
    "product_keys": ("25-character keys, spellings, mistakes, and what is derived.", product_keys.product_keys),
    "exchange": ("Host requests and answers: compact, as blocks of text, as texts of codes.", exchange.exchange),
    "machine_activation": ("Machine requests, and the activations that answer them.", machine_activation.exchanges),
    "requests": ("Sealed fields, the request they make, its hash and its answer's key.", messages.requests),
    "refused_requests": ("Requests that a host refuses with REQUEST_UNREADABLE.", messages.refused_requests),
    "leaves": ("Leaves, their hashes, and how one is sealed under an answer key and a header.", messages.leaves),
    "headers": ("Batch headers, their hashes and signatures.", messages.headers),
    "issuer_certificates": ("Issuer certificates and the root that signed them.", messages.issuer_certificates),
    "host_certificates": ("Host certificates and the issuer that signed them.", messages.host_certificates),
    "revocations": ("Revocation queries and the lists that answer them.", messages.revocations),
    "trees": ("Roots and inclusion paths; leaf i of a tree is the two bytes of i, little-endian.", messages.trees),
    "answers": ("Answers that pass every check, and the result in their leaf.", answers.accepted),
    "refusals": ("Answers that fail a step of 'What a client checks', and the error it gives.", answers.refusals),
    "flips": ("An answer, and the error that each single flipped bit gives; see flips.py.", flips.flips),
}


def render(name: str) -> str:
    """The text of one file."""
    what, make = FILES[name]
    made: Any = make()
    document = {
        "description": what,
        "specification": "docs/protocol.md",
        "made_by": "python -m tests.vectors.generate",
        "encoding": "Byte strings are hex; times are milliseconds since 1970, spans minutes.",
        **(made if isinstance(made, dict) else {"vectors": made}),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def load(name: str) -> dict[str, Any]:
    """The content of one file."""
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    for file_name in FILES:
        (FOLDER / f"{file_name}.json").write_text(render(file_name), encoding="utf-8")
