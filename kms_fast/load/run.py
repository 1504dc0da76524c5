"""One process of a load: ``python -m kms_fast.load.run``, started by processes.py.

It reads its plan, one line of JSON, from stdin, and stops early when stdin ends: so it never outlives who started it,
however that one died. It writes its result so far to stdout twice a second and the whole result at the end, one line
each.
"""

import asyncio
import contextlib
import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from io import FileIO

import msgspec
import uvloop

from kms_fast import __version__
from kms_fast._core import Address, LoadRun, SkuKeys, Verifier
from kms_fast.client.request import pack_version
from kms_fast.load.plan import LoadPlan, LoadResult, Product
from kms_fast.model import signing

TICK_S = 0.001
EXPIRE_S = 1.0
PROGRESS_S = 0.5


class LoadProcess:
    """Drives one `LoadRun` on the running event loop; ``report`` gets the result so far, twice a second."""

    def __init__(self, plan: LoadPlan, report: Callable[[LoadResult], None]) -> None:
        self.plan = plan
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._done = asyncio.Event()
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._cpu_at_start_s = 0.0
        # Unbuffered and appending: every write is whole lines, so several processes share the file.
        self._record = FileIO(plan.record, "ab") if plan.record else None
        keys, verifier = _make_keys(plan.product)
        self._run = LoadRun(
            keys,
            verifier,
            address=Address(plan.address, plan.port),
            sources=_list_sources(plan),
            machine_seed=plan.machine_seed,
            clients=range(*plan.clients),
            verify_percent=plan.verify_percent,
            slots=plan.connections,
            per_connection=plan.per_connection,
            library_version=pack_version(__version__),
            answer_limit_s=plan.answer_limit_s,
            call_later=self._loop.call_later,
            on_ready=self._ready.set,
            on_done=self._done.set,
            record=self._record,
            raw=plan.product is None,
        )

    async def run(self) -> LoadResult:
        """The whole load. Raises OSError when the record cannot be written."""
        plan, run = self.plan, self._run
        try:
            self._loop.add_reader(run.fileno(), run.work)
            self._every(EXPIRE_S, run.expire)
            if plan.per_connection == 0:
                run.connect()
                await self._ready.wait()
                gc.freeze()
            if not self._done.is_set() and not run.errors:
                self._cpu_at_start_s = time.process_time()
                run.start_phase(seconds=plan.seconds, activations=plan.activations, rate=plan.rate)
                self._every(TICK_S if plan.rate else PROGRESS_S, run.pump)
                self._schedule_report()
                await self._done.wait()
                await asyncio.sleep(plan.linger_s)
            result = self._result(finished=True)
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._loop.remove_reader(run.fileno())
            run.close()
            if self._record:
                self._record.close()
        if run.failure:
            raise run.failure
        return result

    def stop(self) -> None:
        """Starts nothing more; `run` returns when what is under way was answered, within 10 seconds."""
        self._run.stop()
        self._ready.set()
        if not self._run.running:
            self._done.set()

    def _every(self, seconds: float, function: Callable[[], None]) -> None:
        def tick() -> None:
            self._timers[function] = self._loop.call_later(seconds, tick)
            function()

        self._timers[function] = self._loop.call_later(seconds, tick)

    def _schedule_report(self) -> None:
        # The clock is the machine's, so all processes of a load report at the same times.
        delay_s = PROGRESS_S - self._loop.time() % PROGRESS_S
        self._timers[self._tell] = self._loop.call_later(delay_s, self._tell)

    def _tell(self) -> None:
        self._schedule_report()
        self._report(self._result(finished=False))

    def _result(self, *, finished: bool) -> LoadResult:
        run = self._run
        errors = {kind: (count, example) for kind, (count, example) in run.errors.items()}
        failure = next(((kind, example) for kind, (_, example) in errors.items()), None) if not run.answered else None
        return LoadResult(
            **run.figures(),
            cpu_s=time.process_time() - self._cpu_at_start_s,
            latencies=tuple(run.latency.counts()),
            latency_max_ns=run.latency.max_ns,
            errors=errors,
            refusals=dict(run.refusals),
            failure=failure,
            finished=finished,
        )


def _make_keys(product: Product | None) -> tuple[SkuKeys, Verifier | None]:
    if product is None:
        return SkuKeys(bytes(16), bytes(32), bytes(32)), None
    keys = SkuKeys(product.sku_id, product.request_key, product.answer_secret)
    verifier = Verifier(
        publisher_id=product.publisher_id,
        roots=product.roots,
        sku=keys,
        family=product.family,
        generation=product.generation,
        revoked=product.revoked,
        verify_signature=signing.verify_message,
    )
    return keys, verifier


def _list_sources(plan: LoadPlan) -> list[Address | None]:
    """Where connections come from: None for wherever the system takes it.

    A closed connection holds its port for a minute, and the search for a free one among tens of thousands costs more
    than all else. Linux has the whole of 127.0.0.0/8 on loopback, so many addresses with ports of their own.
    """
    if sys.platform == "linux" and plan.per_connection and plan.address.startswith("127."):
        return [Address(f"127.0.0.{number}", 0) for number in range(1, 255)]
    return [None]


def _allow_connections(connections: int) -> None:
    """Raise the soft limit of open files as far as it is needed and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _write_line(result: LoadResult) -> None:
    # Who reads may be gone; stdin then ends as well, and that stops the load.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), msgspec.json.encode(result) + b"\n")


async def _run_plan(plan: LoadPlan) -> LoadResult:
    process = LoadProcess(plan, _write_line)
    loop = asyncio.get_running_loop()

    def on_stdin() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            process.stop()

    loop.add_reader(sys.stdin.fileno(), on_stdin)
    return await process.run()


def main() -> None:
    """Run the plan on stdin."""
    line = sys.stdin.buffer.readline()
    if not line:  # stopped before it was told what to do
        return
    plan = msgspec.json.decode(line, type=LoadPlan)
    if plan.cpu is not None:
        os.sched_setaffinity(0, {plan.cpu})
    _allow_connections(plan.connections)
    try:
        result = uvloop.run(_run_plan(plan))
    except OSError as error:
        result = LoadResult(
            failure=("STORAGE_FAILED", f"{error.filename or plan.record}: {error.strerror}"), finished=True
        )
    _write_line(result)


if __name__ == "__main__":
    main()
