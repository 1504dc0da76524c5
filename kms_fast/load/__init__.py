"""Load generator: many simulated machines, each request fresh, each answer checked; latency told honestly.

plan.py        what to do, as one value; what came of it, as one value that merges
run.py         one process: connects, drives the compiled LoadRun, reports
processes.py   starts the processes of a load and merges what they say
timeline.py    what they said on the way, as samples over time
report.py      figures, and how they look on a terminal
page.py        the same as a page with charts
server.py      a host process to load: started, measured, drained
proof.py       what clients were told against what the ledger holds
"""
