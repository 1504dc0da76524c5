"""The story of one machine: what it asked, what it was told, and what is likely to be wrong with it."""

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kms_fast.cli.inventory import format_state
from kms_fast.host.attempts import Attempt
from kms_fast.model.policy import CLOCK_TOLERANCE_MS, MINUTE_MS, format_time
from kms_fast.results import BY_NAME, find_result
from kms_fast.store import Client

SHOWN_ATTEMPTS = 10
HOUR_MS = 60 * MINUTE_MS
# A machine renews after its interval and a tenth more at most; twice that and it has missed one.
MISSED_RENEWAL = 2.2


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that explains what an administrator sees: what was found, and what to do."""

    name: str
    what: str
    cure: str


@dataclass(frozen=True, slots=True)
class Story:
    """A machine: its rows of the inventory, its attempts in this host's ledger (oldest first), and the time now.

    Either may be empty, not both: the recorder is some seconds behind, and a ledger is pruned.
    """

    cmid: uuid.UUID
    clients: Sequence[Client]
    attempts: Sequence[Attempt]
    products: Mapping[bytes, str]
    now_ms: int

    @property
    def skus(self) -> list[bytes]:
        """The products it asked for, the one it asked for last first."""
        last_seen = {attempt.leaf.sku_id: attempt.time_ms for attempt in self.attempts}
        for client in self.clients:
            last_seen[client.sku] = max(client.last_seen_ms, last_seen.get(client.sku, 0))
        return sorted(last_seen, key=lambda sku: -last_seen[sku])

    def last_of(self, sku: bytes) -> Attempt | None:
        """The newest attempt for a product."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.leaf.sku_id == sku), None)

    def client_of(self, sku: bytes) -> Client | None:
        """The row of a product."""
        return next((client for client in self.clients if client.sku == sku), None)

    def name_of(self, sku: bytes) -> str:
        """A product as it is shown."""
        return self.products.get(sku) or str(uuid.UUID(bytes=sku))


def find_causes(story: Story) -> list[Cause]:
    """What explains its state, the likeliest first; never empty."""
    causes = [cause for look in LOOKS for cause in look(story)]
    return causes or [Cause("NOTHING_WRONG", "Its last request was granted, and it renews in time.", "Nothing to do.")]


def _see_clones(story: Story) -> Iterator[Cause]:
    digests = [attempt.leaf.hardware_digest for attempt in story.attempts]
    turns = sum(one != other for one, other in pairwise(digests))
    kinds = len(set(digests))
    changes = max([turns, *(client.hardware_changes for client in story.clients)])
    if turns >= kinds > 1 or changes > 1:
        seen = f"{kinds} hardware digests, which take turns" if kinds > 1 else f"its hardware changed {changes} times"
        yield Cause(
            "DUPLICATED_CMID",
            f"Several machines have this CMID ({seen}); together they count once.",
            "Rearm all but one of them: kms-fast client rearm. Rearm before an image is taken, not after.",
        )
    elif changes == 1:
        yield Cause(
            "HARDWARE_CHANGED_ONCE",
            "Its hardware is another since an earlier request.",
            "If parts were replaced, nothing. If it is a second machine from the same image: kms-fast client rearm.",
        )


def _see_forks(story: Story) -> Iterator[Cause]:
    forked, proved = 0, False
    for sku in story.skus:
        chain = [one for one in story.attempts if one.leaf.sku_id == sku and one.predecessor and one.leaf.result == 0]
        places: dict[bytes | None, list[int]] = {}
        for place, attempt in enumerate(chain):
            places.setdefault(attempt.predecessor, []).append(place)
        for where in places.values():
            successors = [chain[place].leaf for place in where]
            # A request that was sent again has the same hash, and is no second machine.
            if len({leaf.request_hash for leaf in successors}) > 1:
                forked += 1
                went_back = where[-1] - where[0] >= len(where)  # another lease was renewed in between
                proved = proved or went_back or len({leaf.hardware_digest for leaf in successors}) > 1
    if proved:
        yield Cause(
            "LEASE_RENEWED_TWICE",
            f"{forked} of its leases have two successors: the state of one machine exists twice.",
            "Look for a copy of the machine, or one put back to an earlier snapshot; on a copy: kms-fast client rearm.",
        )
    elif forked:
        yield Cause(
            "ANSWER_LOST",
            f"{forked} of its leases have two successors: an answer was lost on the way, or its state exists twice.",
            "Nothing, unless there may be a copy of the machine; on a copy: kms-fast client rearm.",
        )


def _see_refusal(story: Story) -> Iterator[Cause]:
    for sku in story.skus:
        last, client = story.last_of(sku), story.client_of(sku)
        if last is not None and client is not None and last.time_ms < client.last_seen_ms:
            last = None  # another host of the same store has decided since
        if last is not None:
            code = last.leaf.result
        elif client is not None and client.refused_ms is not None and client.refused_ms >= (client.activated_ms or 0):
            code = client.refusal or 0
        else:
            continue
        if code:
            result = find_result(code)
            detail = "" if last is None else _explain_refusal(last)
            yield Cause(result.name, f"{story.name_of(sku)}: {result.meaning}{detail}", result.cure)


def _explain_refusal(attempt: Attempt) -> str:
    name, leaf = find_result(attempt.leaf.result).name, attempt.leaf
    if name == "COUNT_TOO_LOW":
        return f" It had seen {leaf.count}, and needs {leaf.threshold}."
    if name == "CLOCKS_DIFFER":
        machine, host = format_time(leaf.client_time_ms), format_time(attempt.time_ms)
        return f" The machine's clock showed {machine}, the host's {host}."
    return ""


def _see_lateness(story: Story) -> Iterator[Cause]:
    for sku in story.skus:
        client, last = story.client_of(sku), story.last_of(sku)
        if client is None or client.expires_ms is None:
            continue
        silent = f"It has not asked since {format_time(client.last_seen_ms)}"
        cure = "If the machine is still in use, run there: kms-fast doctor, and kms-fast client status."
        if client.expires_ms < story.now_ms:
            ended = f"its lease for {story.name_of(sku)} ended at {format_time(client.expires_ms)}"
            yield Cause("LEASE_ENDED", f"{silent}, and {ended}.", cure)
        elif last is not None and last.leaf.result == 0:
            due_ms = min(last.leaf.renewal_interval_min, last.leaf.validity_min / 2) * MINUTE_MS * MISSED_RENEWAL
            if story.now_ms - client.last_seen_ms > due_ms:
                yield Cause("RENEWAL_MISSED", f"{silent}, although it should have renewed by now.", cure)


def _see_clock(story: Story) -> Iterator[Cause]:
    if story.attempts:
        difference_ms = story.attempts[-1].clock_difference_ms
        if HOUR_MS <= abs(difference_ms) <= CLOCK_TOLERANCE_MS:
            yield Cause(
                "CLOCK_DRIFTS",
                f"Its clock is {format_difference(difference_ms)} the host's; "
                f"beyond {CLOCK_TOLERANCE_MS // HOUR_MS} hours it is refused.",
                BY_NAME["CLOCKS_DIFFER"].cure,
            )


LOOKS: tuple[Callable[[Story], Iterator[Cause]], ...] = (
    _see_refusal,
    _see_clones,
    _see_forks,
    _see_lateness,
    _see_clock,
)


def format_difference(difference_ms: int) -> str:
    """How far a clock is from another: ``1 h 02 min ahead of``."""
    minutes, direction = abs(difference_ms) // MINUTE_MS, "ahead of" if difference_ms > 0 else "behind"
    if minutes == 0:
        return "within a minute of"
    return f"{minutes // 60} h {minutes % 60:02} min {direction}"


def describe_story(story: Story) -> dict[str, Any]:
    """The object of ``--json``."""
    return {
        "cmid": story.cmid,
        "products": [_describe_product(story, sku) for sku in story.skus],
        "previous_cmids": _list_previous(story),
        "hardware": dict(Counter(attempt.leaf.hardware_digest.hex() for attempt in story.attempts)),
        "attempts": [_describe_attempt(story, attempt) for attempt in story.attempts[-SHOWN_ATTEMPTS:]],
        "attempts_in_ledger": len(story.attempts),
        "causes": [{"name": cause.name, "what": cause.what, "cure": cause.cure} for cause in find_causes(story)],
    }


def _describe_product(story: Story, sku: bytes) -> dict[str, Any]:
    client, last = story.client_of(sku), story.last_of(sku)
    told = Counter(find_result(attempt.leaf.result).name for attempt in story.attempts if attempt.leaf.sku_id == sku)
    granted, refused = told.pop(BY_NAME["ACTIVATED"].name, 0), dict(told)
    known = max(granted, client.activations if client else 0)
    refusals = max(sum(refused.values()), client.refusals if client else 0)
    return {
        "sku": uuid.UUID(bytes=sku),
        "product": story.products.get(sku),
        "generation": None if last is None else last.leaf.generation,
        "state": None if client is None else format_state(client.state),
        "first_seen_ms": None if client is None else client.first_seen_ms,
        "last_seen_ms": None if client is None else client.last_seen_ms,
        "expires_ms": None if client is None else client.expires_ms,
        "granted": known,
        "refused": refusals,
        "refused_by_result": refused,
        "last": None if last is None else _describe_attempt(story, last),
    }


def _describe_attempt(story: Story, attempt: Attempt) -> dict[str, Any]:
    leaf, result = attempt.leaf, find_result(attempt.leaf.result)
    return {
        "time_ms": attempt.time_ms,
        "product": story.products.get(leaf.sku_id),
        "result": result.hex,
        "result_name": result.name,
        "count": leaf.count,
        "threshold": leaf.threshold,
        "client_time_ms": leaf.client_time_ms,
        "clock_difference_ms": attempt.clock_difference_ms,
        "name": attempt.name,
        "address": attempt.address,
        "state": format_state(attempt.state),
        "host_id": uuid.UUID(bytes=attempt.host_id),
    }


def _list_previous(story: Story) -> list[uuid.UUID]:
    """The CMIDs it had before rearms, as far as they are known, newest last."""
    said = [attempt.previous_cmid for attempt in story.attempts] + [client.previous_cmid for client in story.clients]
    return [uuid.UUID(bytes=cmid) for cmid in dict.fromkeys(said) if cmid is not None]


def render_story(story: Story, told: Mapping[str, Any]) -> str:
    """The page for people, from what `describe_story` tells."""
    names = [attempt.name for attempt in reversed(story.attempts)] + [client.name for client in story.clients]
    name = next(filter(None, names), "without a name")
    address = next((attempt.address for attempt in reversed(story.attempts) if attempt.address), None)
    lines = [f"Machine {name}, CMID {story.cmid}" + (f", last from {address}" if address else "")]
    if told["previous_cmids"]:
        lines.append(f"before a rearm: {', '.join(map(str, told['previous_cmids']))}")
    for sku, product in zip(story.skus, told["products"], strict=True):
        lines += ["", *_render_product(story, sku, product)]
    if story.attempts:
        lines += ["", f"last attempts ({len(story.attempts)} in this host's ledger)"]
        lines += [_render_attempt(story, attempt) for attempt in story.attempts[-SHOWN_ATTEMPTS:]]
    for cause in told["causes"]:
        lines += ["", f"{cause['name']}: {cause['what']}", f"  What to do: {cause['cure']}"]
    return "\n".join(lines)


def _render_product(story: Story, sku: bytes, told: Mapping[str, Any]) -> list[str]:
    last = story.last_of(sku)
    generation = "" if told["generation"] is None else f" (generation {told['generation']})"
    by_result = ", ".join(f"{count} {name}" for name, count in told["refused_by_result"].items())
    lines = [f"{story.name_of(sku)}{generation}: {told['state'] or 'not recorded yet'}"]
    if told["first_seen_ms"] is not None:
        seen = (format_time(told["first_seen_ms"]), format_time(told["last_seen_ms"]))
        lines.append(f"  first seen {seen[0]}, last {seen[1]}")
    refused = f"{told['refused']} times" + (f" ({by_result})" if by_result else "")
    lines.append(f"  granted {told['granted']} times, refused {refused}")
    if told["expires_ms"] is not None:
        lines.append(f"  lease until {format_time(told['expires_ms'])}")
    if last is not None:
        lines.append(f"  at the last decision {last.leaf.count} machines were seen, {last.leaf.threshold} are needed")
        lines.append(f"  its clock was {format_difference(last.clock_difference_ms)} the host's")
    return lines


def _render_attempt(story: Story, attempt: Attempt) -> str:
    leaf = attempt.leaf
    return (
        f"  {format_time(attempt.time_ms)}  {find_result(leaf.result).name}  {story.name_of(leaf.sku_id)}  "
        f"count {leaf.count} of {leaf.threshold}  {attempt.address or '-'}"
    )
