"""Vectors of the offline exchange: compact forms, blocks and codes, and texts in which something is wrong."""

from typing import Any

from tests.reference.exchange import block, codes, make_request, pack_answer, pack_request
from tests.vectors.world import FAMILIES, HOST_FROM, HOST_KEY, ISSUER_FROM, PUBLISHER, SECRET, TIME

# Only number and hash of these matter here, so they are not whole.
CATALOG = {"format": "kms_fast catalog 1", "body": {"number": 3, "families": [{"name": "büro"}]}, "signature": "00"}
PUBLISHER_FILE = {"body": {"number": 7, "name": 'Söhne & "Co"'}, "signature": "ff", "format": "kms_fast publisher 1"}


def exchange() -> dict[str, Any]:
    """docs/files.md."""
    secrets = [SECRET, bytes(10), b"\xff" * 10]
    requests = [
        make_request(HOST_KEY, PUBLISHER.publisher_id, secrets[:count], bytes(range(16)), TIME) for count in (1, 3)
    ]
    answers = [
        (PUBLISHER.issue_host(HOST_KEY, FAMILIES[:count], HOST_FROM), PUBLISHER.issue_issuer(ISSUER_FROM))
        for count in (1, 8)
    ]
    return {
        "specification": "docs/files.md",
        "requests": [{"file": request, **_forms(pack_request(request))} for request in requests],
        "answers": [
            {
                "host_certificate": host.hex(),
                "issuer_certificate": issuer.hex(),
                "catalog": CATALOG,
                "publisher": PUBLISHER_FILE,
                **_forms(pack_answer(host, issuer, CATALOG, PUBLISHER_FILE)),
            }
            for host, issuer in answers
        ],
        "wrong": list(_mistakes(pack_request(requests[0]))),
    }


def _forms(compact: bytes) -> dict[str, Any]:
    return {
        "compact": compact.hex(),
        "block": block(compact),
        "codes": [codes(compact, count) for count in (1, 3)],
    }


def _mistakes(compact: bytes) -> list[dict[str, Any]]:
    """Texts of a request, and which of its lines or codes are damaged or missing."""
    lines, scanned = block(compact), codes(compact, 3)
    wrong_symbol = lines[5][:20] + ("0" if lines[5][20] != "0" else "1") + lines[5][21:]
    neighbours = lines[7][:8] + lines[7][9] + lines[7][8] + lines[7][10:]
    return [
        {"what": "a line is lost", "text": lines[:3] + lines[4:], "damaged": [], "missing": [3]},
        {"what": "a symbol is wrong", "text": [*lines[:5], wrong_symbol, *lines[6:]], "damaged": [5], "missing": []},
        {
            "what": "neighbours changed places",
            "text": [*lines[:7], neighbours, *lines[8:]],
            "damaged": [7],
            "missing": [],
        },
        {"what": "a line is cut short", "text": [*lines[:2], lines[2][:-3], *lines[3:]], "damaged": [2], "missing": []},
        {"what": "the end is lost", "text": lines[:7], "damaged": [], "missing": [7, 8]},
        {
            "what": "two lines changed places",
            "text": [*lines[:4], lines[5], lines[4], *lines[6:]],
            "damaged": [],
            "missing": [],
        },
        {"what": "a line is doubled", "text": [*lines[:4], *lines[3:]], "damaged": [], "missing": []},
        {"what": "a code was not scanned", "text": [scanned[2], scanned[0]], "damaged": [], "missing": [2]},
        {"what": "a code is cut short", "text": [*scanned[:2], scanned[2][:-2]], "damaged": [3], "missing": []},
    ]
