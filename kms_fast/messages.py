"""The one table of what is logged: event, level, text. Nothing else spells out a line of the log.

A line for people is the text with its fields filled in; a line of JSON carries the event and the fields as well, so
that programs need not read texts. Of an error ``{error}`` is what happened, ``{error.result.cure}`` what to do.
"""

import logging
from dataclasses import dataclass
from typing import Any

DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


@dataclass(frozen=True, slots=True)
class Message:
    """One row of the table: ``level`` is logging's number, ``text`` a format with named fields."""

    event: str
    level: int
    text: str


_ROWS = (
    (
        "HOST_STARTED",
        INFO,
        "host {host} of {publisher}: {installed}; workers: {workers}, AES by {aes}, SHA-256 by {sha256}",
    ),
    ("HOST_NOT_STARTED", ERROR, "{event}"),
    ("HEALTH_PAGES_OPENED", INFO, "health pages on http://{address}:{port}/readyz"),
    ("ROLLBACK_ACCEPTED", WARNING, "accepted that the ledger lacks batches: {lost}"),
    ("INTERVALS_FIGHT", WARNING, "{conflict} {cure}"),
    ("IPV6_MISSING", WARNING, "this machine has no IPv6: not listening on {address}"),
    (
        "ADDRESS_SHARED",
        WARNING,
        "a host of this home listens on {address} too: both serve until one stops",
    ),
    (
        "FILE_LIMIT_LOW",
        WARNING,
        (
            "this process may open {limit} files, so it holds fewer than max_connections ({connections}): raise its "
            "limit (ulimit -n, LimitNOFILE=) or lower max_connections"
        ),
    ),
    (
        "SERVICE_MANAGER_NOT_TOLD",
        WARNING,
        (
            "the service manager at {address} cannot be told: {reason}. Restart the service; if none manages it, "
            "unset NOTIFY_SOCKET"
        ),
    ),
    ("CHILD_DIED", ERROR, "{error} It starts again in {delay_s:.1f} s."),
    ("CHILD_BACK", INFO, "{name} is back (process {pid})"),
    ("CHILD_PRINTED", WARNING, "{name} said on its stdout: {line!r}"),
    ("RELOADED", INFO, "reloaded: {installed}"),
    ("RELOAD_REFUSED", ERROR, "not reloaded: {error} {error.result.cure}"),
    ("SETTING_KEPT", WARNING, "{setting} changes with the next start only"),
    ("CHORE_FAILED", ERROR, "{chore}: {error} {error.result.cure}"),
    ("CHORE_BUG", ERROR, "{chore} ended because of an error in this program; it is tried again later"),
    ("RENEWED", INFO, "renewed: certificate {serial} until {until}"),
    ("PUBLISHER_FILE_INSTALLED", INFO, "installed publisher file {number}"),
    ("REVOCATIONS_UNKNOWN", WARNING, "newer revocations could not be taken: {reason}"),
    ("CERTIFICATE_ENDS", WARNING, "the certificate ends in {days} days and is not renewed: {cure}"),
    ("CERTIFICATE_ENDS_SOON", ERROR, "the certificate ends in {days} days and is not renewed: {cure}"),
    ("DNS_FAILED", ERROR, "{event}: {error} {error.result.cure}"),
    ("DNS_PUBLISHED", INFO, "{event}: published {record} at {server}"),
    ("DNS_RECORD_WRONG", WARNING, "DNS record {finding.host} of {name}: {finding.sight}. {finding.cure}"),
    ("DRAINING", INFO, "draining {connections} connections"),
    ("DRAIN_FAILED", ERROR, "{error}"),
    ("DRAIN_TIMED_OUT", ERROR, "not drained within {limit_s} s: ended by force"),
    ("HOST_STOPPED", INFO, "stopped: drained in {duration_s:.1f} s"),
    ("REQUESTS_REFUSED", ERROR, "requests are answered {result}: {reason}"),
    ("REQUESTS_TAKEN", INFO, "requests are no longer answered {result}"),
    ("DISK_LOW", ERROR, "{reason}; requests are answered SERVER_BUSY"),
    ("DISK_ENOUGH", INFO, "the disk of {folder} has room again"),
    (
        "FOREIGN_CLIENT",
        WARNING,
        (
            "a client at {peer} asked for RPC interface {interface}, which this host does not serve; "
            "clients of other products belong to the licensed host of that product"
        ),
    ),
    ("COUNTS_NOT_LOADED", ERROR, "{error}"),
    ("COUNTS_NOT_STORED", ERROR, "below a family's cap requests are answered SERVER_BUSY: {error}"),
    ("COUNTS_STORED", INFO, "counts are stored again"),
    ("COUNTS_WAIT", ERROR, "{error} Families at their cap are served; what they counted is stored later."),
    ("SEGMENT_NOT_CLOSED", ERROR, "{error}"),
    ("SEGMENT_NOT_BEGUN", ERROR, "{error}"),
    ("CONNECTION_BUG", ERROR, "a connection was closed because of an error in this program"),
    ("WORKER_BUG", ERROR, "{reason}"),
    ("RECORDER_WAITS", INFO, "another recorder of this host is at work; this one waits"),
    ("RECORDER_ENDS", ERROR, "the recorder ends: {error} {error.result.cure}"),
    ("RECORDER_OUTAGE", ERROR, "{error} The recorder tries again until it can go on."),
    ("RECORDER_BACK", INFO, "the inventory is recorded again"),
    (
        "SEGMENT_LEFT",
        ERROR,
        "{error} The segment is not recorded any further. {error.result.cure} ({error.result.name})",
    ),
    ("PRUNED", INFO, "dropped the records of {batches} batches, older than keep_records"),
    ("PRUNE_FAILED", ERROR, "{error} ({error.result.name}) The ledger is pruned again in an hour."),
    ("HOST_ASKED", INFO, "{event}"),
    ("HOST_ANSWERED", INFO, "{event}"),
    ("CLIENT_STARTED", INFO, "looks after the products of {home}"),
    ("CLIENT_STOPPED", INFO, "no longer looks after the products of {home}"),
    ("PRODUCT_ACTIVATED", INFO, "{product} is activated until {until}"),
    ("PRODUCT_REFUSED", WARNING, "{product} was not activated: {error} {error.result.cure} ({error.result.hex})"),
    ("PRODUCT_EXPIRES", WARNING, "{product} expires within {within} and has not been renewed"),
    ("PRODUCT_WELL", INFO, "{state}{reason}"),
    ("PRODUCT_UNLICENSED", WARNING, "{state}{reason}"),
    ("PRODUCT_LEFT", ERROR, "{subject} cannot be looked after: {error} {error.result.cure} ({error.result.hex})"),
    (
        "STATE_UNUSABLE",
        ERROR,
        "{subject} cannot be looked after: {error}. Free space or correct rights; it is tried again.",
    ),
    ("KEY_AWAITED", WARNING, "waiting for a key: {error}"),
    ("SERVICE_STARTED", INFO, "activation service on {url}: {installed}"),
    ("SERVICE_STOPPED", INFO, "stopped"),
    ("TLS_NOT_RELOADED", ERROR, "not reloaded: {error}"),
    (
        "ACCEPT_FAILED",
        ERROR,
        (
            "no connection is accepted: {reason}. It is tried again; if files are too many, raise their limit "
            "(ulimit -n, LimitNOFILE=) or end what holds them"
        ),
    ),
    ("ACCEPT_BACK", INFO, "connections are accepted again"),
    (
        "CERTIFIED",
        INFO,
        "{peer}: certified host {host} until {until}: certificate {serial}, {how} with host key {keys}",
    ),
    (
        "MACHINE_ACTIVATED",
        INFO,
        "{peer}: {how} machine {machine} with multiple-activation key {key}: {machines} of {allowed} machines",
    ),
    ("REQUEST_REFUSED", WARNING, "{peer}: refused: {error} ({error.result.name})"),
    ("REQUESTS_LIMITED", WARNING, "too many requests of {who}; refused so since the last such line: {refused}"),
    ("REQUEST_FAILED", ERROR, "{peer}: not answered: {error}"),
    ("REQUEST_BUG", ERROR, "a request was not answered because of an error in this program"),
    ("STORE_LOST", WARNING, "{error}"),
    ("STORE_BACK", WARNING, "The store {store} is back."),
    ("STORE_NOT_CLOSED", DEBUG, "closing a connection that is gone: {reason}"),
)

MESSAGES: dict[str, Message] = {event: Message(event, level, text) for event, level, text in _ROWS}

_logger = logging.getLogger("kms_fast")


def log(event: str, /, *, traceback: BaseException | None = None, **fields: Any) -> None:
    """Log the row ``event`` of the table with its fields; ``traceback`` is a bug of ours, whose place matters."""
    message = MESSAGES[event]
    if _logger.isEnabledFor(message.level):
        extra = {"event": event, "fields": fields}
        _logger.log(message.level, message.text.format(**fields), exc_info=traceback, extra=extra)
