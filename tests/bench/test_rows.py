"""Rows of a report: one for each thing that was measured, all of its rounds, and how they are shown."""

import json

from rows import Table, format_rows, read_rows


def test_rounds_of_the_same_thing_are_one_row_and_survive_the_report() -> None:
    table = Table()
    for rate in (100.0, 300.0, 200.0):
        table.add({"server": "host", "connections": 8}, {"rate": rate, "batch": None})
    table.add({"server": "host", "connections": 64}, {"rate": 1.23456789})
    first, second = read_rows(json.loads(json.dumps({"rows": table.to_json()})))
    assert first.labels == {"server": "host", "connections": 8}
    assert first.rounds == {"rate": [100.0, 300.0, 200.0]}
    assert (first.median("rate"), first.median("batch")) == (200.0, None)
    assert second.rounds == {"rate": [1.2346]}


def test_rows_with_other_labels_are_another_table() -> None:
    table = Table()
    table.add({"server": "host", "connections": 1000}, {"rate": 12_345.0})
    table.add({"server": "echo", "connections": 1000}, {"rate": 5.0, "p99_ms": 1.234})
    table.add({"query": "page"}, {"ms": 123.4})
    assert [line.split() for line in format_rows(table.rows)] == [
        ["rate", "p99_ms"],
        ["host,", "connections", "1,000", "12,345", "–"],
        ["echo,", "connections", "1,000", "5", "1.23"],
        [],
        ["ms"],
        ["page", "123.4"],
    ]
