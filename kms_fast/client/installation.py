"""The products of one publisher on this machine: setup keys, hosts, leases, licence states. No network here.

`Installation` begins and finishes an activation; the shells `blocking.Client` and `aio.AsyncClient` carry it out.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kms_fast.client.activation import InstalledProduct
from kms_fast.client.direct import DirectActivation, DirectRequest, check_hardware, verify_direct
from kms_fast.client.history import describe_direct
from kms_fast.client.lease import Lease, read_serial, verify_lease
from kms_fast.client.machine import Clock, Machine, SystemClock, read_machine
from kms_fast.client.round import Round
from kms_fast.client.state import Attempt, Failure, Product, State, StateFile, StoredActivation
from kms_fast.client.status import MachineStatus, Status, describe_machine, describe_product, describe_removed
from kms_fast.client.trust import Trust, describe_given_up, newest_revocations, require_sku
from kms_fast.discovery.address import HostAddress, parse_address, parse_domain
from kms_fast.errors import ConfigurationError, KmsFastError
from kms_fast.model.catalog import Sku, find_sku
from kms_fast.model.document import malformed
from kms_fast.model.keys import KeyKind, parse_key
from kms_fast.model.machine_activation import ActivationKeySecrets, MachineActivation, MachineRequest
from kms_fast.model.policy import (
    JITTER,
    LONGEST_INTERVAL_MIN,
    MAX_REARMS,
    MINUTE_MS,
    LicenceState,
)
from kms_fast.model.publisher_file import PublisherFile

LATEST_ATTEMPT_MS = int(LONGEST_INTERVAL_MIN * MINUTE_MS * (1 + JITTER))


class Installation:
    """One publisher's products on this machine.

    ``publisher``: the bytes of ``publisher.json`` as the product embeds it; None takes the one stored with the key.
    ``home``: the folder whose ``client/state.json`` keeps all. ``customer_id``: the only customer whose hosts may
    activate, 0 for any. ``domain``: where to look the service record up unless `set_domain` said so, None for the
    machine's own domains. ``clock`` and ``read_machine`` are for tests.

    Methods that take ``sku`` need it only when several keys are installed. All raise `KmsFastError` and its kinds for
    what a user can meet, OSError when the state file cannot be read or written.
    """

    def __init__(
        self,
        *,
        home: str | Path,
        publisher: bytes | None = None,
        customer_id: int = 0,
        domain: str | None = None,
        clock: Clock | None = None,
        read_machine: Callable[[], Machine] = read_machine,
    ) -> None:
        self._file = StateFile(Path(home) / "client")
        self._embedded = None if publisher is None else (publisher, PublisherFile.parse(publisher))
        self._customer_id = customer_id
        self._domain = domain
        self._clock = clock or SystemClock()
        self._read_machine = read_machine

    def install_key(self, text: str) -> Sku:
        """Install a client setup key, and the publisher file with it; returns the key's SKU. Raises `KeyInvalid`.

        Installing the key that is there already changes nothing; another key for the same SKU drops its lease.
        """
        publisher = self._choose_publisher(self._file.read())[1]
        key = parse_key(text, expect=KeyKind.CLIENT_SETUP, publisher_id=publisher.publisher_id)
        sku = publisher.sku(key.reference)
        with self._adding(sku) as opened:
            product = opened.product
            product.grace_started_ms = product.grace_started_ms or self._clock.now_ms()
            if product.key != key.text:
                product.lease = product.pending = product.failure = product.warned_days = None
                product.key, product.next_attempt_ms = key.text, 0
        return sku

    def uninstall_key(self, sku: uuid.UUID | None = None) -> uuid.UUID:
        """Remove a setup key and every activation; the grace does not begin anew. Returns the SKU's ID."""
        with self._file.locked():
            state = self._require_state()
            chosen = self._choose(state, sku)
            product = state.products[chosen]
            product.key = product.lease = product.pending = product.direct = None
            self._file.write(state)
        return chosen

    def set_host(self, address: str, sku: uuid.UUID | None = None) -> HostAddress:
        """Ask only this host: a name, IPv4 address or IPv6 address in brackets, with a port or 1688."""
        host = parse_address(address)
        with self._changing(sku) as opened:
            opened.product.host, opened.product.next_attempt_ms = str(host), 0
        return host

    def clear_host(self, sku: uuid.UUID | None = None) -> None:
        """Find hosts by DNS again; forgets the cached host too."""
        with self._changing(sku) as opened:
            opened.product.host = opened.product.cached_host = None
            opened.product.next_attempt_ms = 0

    def set_domain(self, domain: str, sku: uuid.UUID | None = None) -> str:
        """Look the service record up in this domain alone; returns it as it is kept."""
        domain = parse_domain(domain)
        with self._changing(sku) as opened:
            opened.product.domain, opened.product.next_attempt_ms = domain, 0
        return domain

    def clear_domain(self, sku: uuid.UUID | None = None) -> None:
        """Look the service record up in the machine's own domains again."""
        with self._changing(sku) as opened:
            opened.product.domain, opened.product.next_attempt_ms = None, 0

    def set_host_cache(self, enabled: bool, sku: uuid.UUID | None = None) -> None:
        """Whether the host that granted last is remembered and asked first; a remembered one is forgotten."""
        with self._changing(sku) as opened:
            opened.product.host_cache = enabled
            if not enabled:
                opened.product.cached_host = None

    def rearm(self) -> int:
        """Make this a new machine: new CMID, activations dropped, initial grace anew. Returns how many rearms are left.

        Raises `KmsFastError` (REARMS_USED_UP) after the fifth.
        """
        with self._file.locked():
            state = self._require_state()
            if state.rearms >= MAX_REARMS:
                raise KmsFastError(f"This installation was rearmed {MAX_REARMS} times already.", name="REARMS_USED_UP")
            state.rearms += 1
            state.previous_cmid, state.cmid = state.cmid, uuid.uuid4()
            state.mark_ms = 0
            for product in state.products.values():
                product.lease = product.pending = product.failure = product.warned_days = product.direct = None
                # A product that was never installed has none yet.
                product.grace_started_ms = product.grace_started_ms and self._clock.now_ms()
                product.next_attempt_ms = 0
            self._file.write(state)
            return MAX_REARMS - state.rearms

    def skus(self) -> list[Sku]:
        """The SKUs that have a setup key or an activation by the publisher itself, but for those of `unlisted`."""
        state = self._require_state()
        return self._list_skus(state, state.installed)

    def unlisted(self) -> dict[uuid.UUID, ConfigurationError]:
        """The products that are installed but not in the publisher file, and why nothing can be done for them.

        A publisher may give a product up; the newer file reaches the machine with another one of its products.
        """
        state = self._require_state()
        publisher = self._publisher_of(state)
        return {
            id_: describe_given_up(publisher, id_) for id_ in state.installed if find_sku(publisher.skus, id_) is None
        }

    def find_sku(self, wanted: str | None) -> uuid.UUID | None:
        """The ID of a product by its name or ID, as users write it, its key installed or removed; None as it is."""
        if wanted is None:
            return None
        try:
            return uuid.UUID(wanted)
        except ValueError:
            state = self._require_state()
        publisher = self._publisher_of(state)
        # A removed product need not be in the publisher file any more.
        ids = {sku.name: sku.id for sku in publisher.skus if sku.id in state.products}
        if wanted not in ids:
            raise self._not_installed(state, wanted)
        return ids[wanted]

    def status(self, sku: uuid.UUID | None = None) -> Status:
        """The licence state of a product, its lease, and when it will be renewed. Verifies the stored lease anew."""
        opened = self._open(self._require_state(), sku)
        if self._note_revoked(opened) and self._file.is_writable:
            with self._changing(sku) as opened:
                self._note_revoked(opened)
        return describe_product(opened)

    def removed(self) -> list[Status]:
        """Products whose key was uninstalled: unlicensed; their grace and history go on."""
        state = self._require_state()
        removed = [id_ for id_, one in state.products.items() if not one.is_installed and one.grace_started_ms]
        return [describe_removed(state, sku, state.products[sku.id]) for sku in self._list_skus(state, removed)]

    def machine(self) -> MachineStatus:
        """What is known of this machine and its publisher, whichever product."""
        state = self._require_state()
        return describe_machine(state, self._publisher_of(state), self._read_machine(), self._file.path)

    def history(self, sku: uuid.UUID | None = None) -> list[tuple[Sku, list[Attempt]]]:
        """The newest attempts of one product or of every one, the last one last; also where the key was removed."""
        state = self._require_state()
        if sku is None:
            skus = self._list_skus(state, state.products)
        elif sku in state.products:
            skus = [require_sku(self._publisher_of(state), sku)]
        else:
            raise self._not_installed(state, sku)
        return [(one, state.products[one.id].history) for one in skus]

    def note_expiry_warning(self, sku: uuid.UUID | None = None) -> int | None:
        """30, 7 or 1 when the lease has at most so many days left and nobody was told so yet; noted as told."""
        if not self.status(sku).warning_is_new:
            return None
        with self._changing(sku) as opened:
            status = describe_product(opened)
            if not status.warning_is_new:
                return None
            opened.product.warned_days = status.warning_days
        return status.warning_days

    def is_due(self, sku: uuid.UUID | None = None) -> bool:
        """Whether it is time to activate or renew, by the host's intervals; at once when a lease is lost.

        Never for a product that the publisher itself has activated, or that has no setup key to ask hosts with.
        """
        opened = self._open(self._require_state(), sku)
        product, licence = opened.product, opened.judge()
        if product.key is None or licence.needs_no_host:
            return False
        if product.failure is None and licence.status.state is not LicenceState.LICENSED:
            return True
        # Further ahead than any interval: the clock was ahead when the time was set.
        return not 0 < product.next_attempt_ms - self._clock.now_ms() <= LATEST_ATTEMPT_MS

    def begin(self, sku: uuid.UUID | None = None) -> Round:
        """The round that a shell is to carry out; its request is stored first, to be sent again if no answer comes."""
        with self._changing(sku) as opened:
            return opened.make_round(self._domain)

    def finish(self, round_: Round) -> Lease:
        """Store what the round brought; returns the new lease, or raises why there is none."""
        with self._changing(round_.inquiry.trust.sku.id) as opened:
            error = opened.take(round_)
            self._note_revoked(opened)
            stored = opened.product.lease
        if error is not None:
            raise error
        assert stored is not None
        return verify_lease(stored, round_.inquiry.trust)

    def begin_direct(self, text: str) -> DirectRequest:
        """What to ask the publisher itself, with a multiple-activation key.

        A home that is new is made, so that the machine is the same one whenever it asks. Raises `KeyInvalid`, and
        `KmsFastError` (HARDWARE_UNKNOWN) where nothing tells this machine from another one.
        """
        publisher = self._choose_publisher(self._file.read())[1]
        key = parse_key(text, expect=KeyKind.MULTIPLE_ACTIVATION, publisher_id=publisher.publisher_id)
        sku, secrets = publisher.sku(key.reference), ActivationKeySecrets.derive(key, publisher.publisher_id)
        with self._adding(sku) as opened:
            check_hardware(opened.state.hardware_sources)
            machine = MachineRequest(
                publisher.publisher_id,
                secrets.key_id,
                sku.id,
                opened.state.cmid,
                opened.hardware_digest,
                self._clock.now_ms(),
            )
        return DirectRequest(sku, publisher.activation_url, machine.seal(secrets))

    def finish_direct(self, answer: bytes) -> DirectActivation:
        """Check and store what the publisher answered; from then on no host is asked.

        Raises `ConfigurationError` for what is damaged, another publisher's or made for another machine, and when the
        issuer's certificate has ended: whoever has its key then could still sign with an earlier time.
        """
        asked, state = MachineActivation.parse(answer), self._file.read()
        if state is None or asked.cmid != state.cmid:
            raise malformed(f"The activation is of machine {asked.cmid}: apply it where its request was made.")
        stored = StoredActivation(answer, self._clock.now_ms())
        with self._adding(self._publisher_of(state).sku(asked.sku)) as opened:
            activation = verify_direct(stored, opened.trust)
            asked.issuer.check_dates(stored.received_ms)
            if not activation.is_of(opened.state.cmid.bytes, opened.hardware_digest):
                raise malformed("The activation was asked for on other hardware: make the request again, here.")
            opened.product.direct, opened.product.failure = stored, None
            opened.product.grace_started_ms = opened.product.grace_started_ms or stored.received_ms
            opened.product.note(describe_direct(None, stored.received_ms))
        return activation

    def fail_direct(self, request: DirectRequest, error: KmsFastError) -> None:
        """Note why the publisher did not activate; the licence state is what it was."""
        now_ms = self._clock.now_ms()
        with self._adding(request.sku) as opened:
            opened.product.failure = Failure(now_ms, error.result.code, error.message)
            opened.product.note(describe_direct(error, now_ms))

    def _note_revoked(self, opened: InstalledProduct) -> bool:
        """Note when the product's lease is found to come from a host that is revoked; whether it was noted now."""
        lease = opened.product.lease
        revocations = newest_revocations(opened.trust.publisher, opened.state.revocations)
        if lease is None or lease.revoked_ms is not None or revocations is None:
            return False
        if read_serial(lease) not in revocations.serials:
            return False
        lease.revoked_ms = self._clock.now_ms()
        return True

    def _make_state(self) -> State:
        sources = sorted(self._read_machine().hardware_ids)
        return State(publisher="", cmid=uuid.uuid4(), hardware_sources=sources)

    def _require_state(self) -> State:
        state = self._file.read()
        if state is None:
            raise KmsFastError("No client setup key is installed.", name="NO_KEY_INSTALLED", file=str(self._file.path))
        return state

    def _choose_publisher(self, state: State | None) -> tuple[bytes, PublisherFile]:
        """The newer of the embedded publisher file and the stored one; both must be one publisher's."""
        if state is None or not state.publisher:
            if self._embedded is None:
                raise ConfigurationError(
                    "No publisher file is known yet: give the publisher's publisher.json (--publisher)."
                )
            return self._embedded
        data = state.publisher.encode()
        if self._embedded is None:
            return data, PublisherFile.parse(data)
        embedded, stored = self._embedded[1], PublisherFile.parse(data)
        if stored.publisher_id == embedded.publisher_id and stored.number > embedded.number:
            return data, PublisherFile.parse(data, trusted_roots=embedded.roots)
        embedded.check_replaces(stored)
        return self._embedded

    def _publisher_of(self, state: State) -> PublisherFile:
        return self._choose_publisher(state)[1]

    def _open(self, state: State, wanted: uuid.UUID | None) -> InstalledProduct:
        """The product meant by ``wanted``; without it, the only one whose key is installed."""
        chosen, publisher = self._choose(state, wanted), self._publisher_of(state)
        return self._open_product(state, publisher, require_sku(publisher, chosen))

    def _choose(self, state: State, wanted: uuid.UUID | None) -> uuid.UUID:
        installed = state.installed
        if wanted is None and len(installed) > 1:
            raise ConfigurationError(
                f"Keys of several products are installed; say which is meant (--sku): {self._name_installed(state)}."
            )
        chosen = next(iter(installed), None) if wanted is None else wanted
        if chosen is None or chosen not in installed:
            raise self._not_installed(state, wanted)
        return chosen

    def _list_skus(self, state: State, ids: Iterable[uuid.UUID]) -> list[Sku]:
        """Those of these that the publisher file has."""
        skus = self._publisher_of(state).skus
        return [sku for id_ in ids if (sku := find_sku(skus, id_))]

    def _name_installed(self, state: State) -> str:
        names = {sku.id: f"{sku.name} ({sku.id})" for sku in self._list_skus(state, state.installed)}
        return ", ".join(names.get(id_, str(id_)) for id_ in state.installed)

    def _not_installed(self, state: State, wanted: uuid.UUID | str | None) -> KmsFastError:
        what = "" if wanted is None else f" for the product {wanted}"
        others = f"; there is one for {self._name_installed(state)}" if state.installed else ""
        return KmsFastError(f"No client setup key is installed{what}{others}.", name="NO_KEY_INSTALLED")

    def _open_product(self, state: State, publisher: PublisherFile, sku: Sku) -> InstalledProduct:
        product = state.products[sku.id]
        key = None if product.key is None else parse_key(product.key, publisher_id=publisher.publisher_id)
        trust = Trust(publisher, sku, key, self._customer_id)
        return InstalledProduct(state, product, trust, self._clock, self._read_machine())

    @contextmanager
    def _adding(self, sku: Sku) -> Iterator[InstalledProduct]:
        """As `_changing`, for a product and a home that may be new."""
        with self._file.locked():
            state = self._file.read() or self._make_state()
            data, publisher = self._choose_publisher(state)
            state.publisher = data.decode()
            state.products.setdefault(sku.id, Product(None, 0))
            yield self._open_product(state, publisher, sku)
            self._file.write(state)

    @contextmanager
    def _changing(self, sku: uuid.UUID | None) -> Iterator[InstalledProduct]:
        """One product and its state, to change under the lock; written when the block ends well."""
        with self._file.locked():
            opened = self._open(self._require_state(), sku)
            yield opened
            self._file.write(opened.state)
