"""The page of results: what was measured has its part, what was not is left out, the yardsticks are always there."""

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

import pytest
from page import build_page
from rows import Table
from yardsticks import YARDSTICKS

MACHINE = {"commit": "abc1234", "date": "2026-02-01", "machine": "a machine", "python": "3.11.7"}
NAMES = ("server_us", "load_us", "rate", "busy", "p50_ms", "p90_ms", "p99_ms", "batch", "offered", "ns", "kib")
FIGURES = dict.fromkeys(NAMES, 1.5)


def make_report(*labels: Mapping[str, str | int]) -> dict[str, Any]:
    table = Table()
    for of in labels:
        table.add(of, FIGURES)
    return {"rows": table.to_json()}


RESULTS = {
    "limits": make_report({"run": "host kept open"}, {"figure": "siv_ratio"}),
    "connections": make_report(
        *(
            {"server": server, "way": way, "connections": connections}
            for server in ("echo", "uvloop", "host", "host, 2 workers")
            for way, connections in (("kept open", 1), ("kept open", 512), ("a connection each", 8))
        )
    ),
    "latency": make_report({"server": "uvloop", "percent": 50}, {"server": "host", "percent": 50}),
    "spacing": make_report({"way": "closed loop", "spacing_ms": 0}, {"way": "closed loop", "spacing_ms": 2}),
    "memory": make_report({"server": "host", "connections": 1000}),
    "known_clients_1m": make_report({"known clients": 0}, {"known clients": 1000}),
    "request": make_report({"batch": 1}, {"batch": 64}),
    "kernels": make_report({"kernel": "SHA-256", "bytes": 220, "by": "core"}),
    "ledger": make_report({"leaves": 32}),
}

TITLES = {
    "limits": ["limits, by run"],
    "connections": [
        f"{title}, {way}"
        for way in ("kept open", "a connection each")
        for title in ("CPU of an activation", "Rate, closed loop")
    ]
    + ["p99 latency, kept open, closed loop"],
    "latency": [
        "Latency against offered rate: host",
        "Latency against offered rate: uvloop",
        "p99 against the part of the peak rate",
    ],
    "spacing": [
        "CPU of an activation against batch spacing",
        "p50 latency against batch spacing",
        "Activations a batch against batch spacing",
    ],
    "memory": ["Memory of open connections"],
    "known_clients_1m": ["Growth with known clients"],
    "request": ["One request through the core, by stages"],
    "kernels": ["SHA-256, 220 bytes"],
    "ledger": ["ledger, by leaves"],
}


def make_page(results: Mapping[str, Any], *, quick: bool = False, meaning: str = "not measured") -> str:
    figures = {key: {"value": None, "meaning": meaning} for key in YARDSTICKS}
    return build_page({**MACHINE, "quick": quick, "figures": figures, "results": results}).decode()


def read_titles(page: str) -> list[str]:
    return [unescape(title) for title in re.findall("<h2>(.*?)</h2>", page)]


def test_without_any_result_the_yardsticks_stand_there_unmeasured() -> None:
    page = make_page({})
    assert read_titles(page) == ["Distance to reach", "Yardsticks"]
    assert all(unescape(page).count(yardstick.what) == 2 for yardstick in YARDSTICKS.values())
    assert f"0 of {len(YARDSTICKS)}" in page


@pytest.mark.parametrize("name", RESULTS)
def test_each_result_has_its_parts(name: str) -> None:
    assert read_titles(make_page({name: RESULTS[name]}))[2:] == TITLES[name]


def test_all_results_stand_on_one_page_that_says_what_it_was_measured_on() -> None:
    page = make_page(RESULTS, meaning="stretch")
    assert sorted(read_titles(page)[2:]) == sorted(title for titles in TITLES.values() for title in titles)
    assert "commit abc1234, 2026-02-01, a machine" in page
    assert f"{len(YARDSTICKS)} of {len(YARDSTICKS)}" in page


def test_small_sizes_are_marked_as_such() -> None:
    assert "not to be quoted" in make_page({}, quick=True)
    assert "not to be quoted" not in make_page({})
