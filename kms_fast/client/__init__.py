"""The client that a product embeds: activates the machine, renews, and tells the licence state (docs/embedding.md).

client = Client(publisher=..., home=...)     # or AsyncClient
client.install_key(text)
client.renew()                               # asks a host when it is time
client.status().state
"""

from kms_fast.client.aio import AsyncClient
from kms_fast.client.blocking import Client
from kms_fast.client.direct import DirectActivation, DirectRequest
from kms_fast.client.installation import Installation
from kms_fast.client.lease import Lease, Licence
from kms_fast.client.state import Attempt
from kms_fast.client.status import MachineStatus, Status
from kms_fast.errors import (
    ActivationError,
    AnswerRejected,
    ConfigurationError,
    KeyInvalid,
    KmsFastError,
    NoHost,
    Refused,
    Unsigned,
    read_refusal,
)
from kms_fast.model.policy import LicenceState

__all__ = [
    "ActivationError",
    "AnswerRejected",
    "AsyncClient",
    "Attempt",
    "Client",
    "ConfigurationError",
    "DirectActivation",
    "DirectRequest",
    "Installation",
    "KeyInvalid",
    "KmsFastError",
    "Lease",
    "Licence",
    "LicenceState",
    "MachineStatus",
    "NoHost",
    "Refused",
    "Status",
    "Unsigned",
    "read_refusal",
]
