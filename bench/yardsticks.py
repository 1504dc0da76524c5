"""The yardsticks of a host's speed: what is measured, what is to be reached, how a report of them looks."""

from typing import Any

# Key: (what it is, reach, stretch). A ratio or time is better when smaller, a rate when larger.
YARDSTICKS: dict[str, tuple[str, str, str]] = {
    "cpu_ratio_kept_open": ("server CPU ÷ uvloop limit, kept open", "≤ 1.35", "≤ 1.15"),
    "cpu_ratio_per_connection": ("server CPU ÷ uvloop limit, a connection each", "≤ 1.35", "≤ 1.15"),
    "echo_ratio_kept_open": ("server CPU ÷ echo limit, kept open", "≤ 2.0", "≤ 1.5"),
    "echo_ratio_per_connection": ("server CPU ÷ echo limit, a connection each", "≤ 1.6", "≤ 1.35"),
    "rate_ratio_uvloop": ("rate ÷ uvloop limit's, kept open", "≥ 0.7", "≥ 0.9"),
    "cpu_ratio_at_20k": ("server CPU ÷ uvloop limit at 20,000 offered a second", "≤ 1.6", "≤ 1.3"),
    "p99_ms_half_load": ("p99 at half the peak rate, open loop, ms", "≤ 10", "≤ 3"),
    "rss_kib_per_idle_connection": ("RSS per connection, 10,000 open, KiB", "≤ 2.5", "≤ 2"),
    "siv_ratio": ("AES-SIV open of a request ÷ cryptography", "≤ 0.1", "≤ 0.06"),
    "load_ratio_verify_none": ("load CPU ÷ uvloop limit, verify none", "≤ 1.3", "≤ 1.1"),
    "load_ratio_verify_all": ("load CPU ÷ uvloop limit, verify all", "≤ 2.0", "≤ 1.5"),
    "rate_ratio_10m": ("rate with 10 M known clients ÷ with none", "≥ 0.95", "≥ 0.99"),
    "recorder_per_s": ("recorder, records a second", "≥ 100000", "≥ 250000"),
    "dashboard_ms": ("dashboard over 10 M clients, ms", "≤ 200", "≤ 50"),
}


def format_figures(report: dict[str, Any]) -> str:
    lines = [f"{'figure':56}{'measured':>10}{'reach':>12}{'stretch':>12}"]
    for key, (what, reach, stretch) in YARDSTICKS.items():
        value = report[key]
        lines.append(f"{what:56}{'-' if value is None else value:>10}{reach:>12}{stretch:>12}")
    lines += [
        "",
        f"{'µs of CPU an activation, medians':36}{'server':>9}{'load':>9}{'rate/s':>10}{'busy':>7}{'p99 ms':>9}",
    ]
    for name, of in report["measured"].items():
        lines.append(
            f"{name:36}{of['server_us']:>9.2f}{of['load_us']:>9.2f}{of['rate']:>10,.0f}{of['busy']:>7.2f}{of['p99_ms']:>9.2f}"
        )
    return "\n".join([*lines, "", f"{report['machine']}, {report['date']}, commit {report['commit']}"])
