"""Run by an interpreter that has impacket: calls the server on the port given, prints what came of it as JSON.

The calls are declared as any user of impacket would from docs/kms_fast.idl.
"""

import json
import sys

from impacket.dcerpc.v5 import transport
from impacket.dcerpc.v5.dtypes import DWORD
from impacket.dcerpc.v5.ndr import NDRCALL, NDRPOINTER, NDRUniConformantArray
from impacket.dcerpc.v5.rpcrt import DCERPCException
from impacket.uuid import uuidtup_to_bin

INTERFACE = uuidtup_to_bin(("f96e4d9c-c270-4994-be5f-bbef9f3235ea", "1.0"))
OTHER = uuidtup_to_bin(("6a2f3c1e-0000-4000-8000-0123456789ab", "1.0"))


class Octets(NDRUniConformantArray):
    item = "c"


class OctetsPointer(NDRPOINTER):
    referent = (("Data", Octets),)


class Activate(NDRCALL):
    opnum = 0
    structure = (("request_length", DWORD), ("request", Octets))


class ActivateResponse(NDRCALL):
    structure = (("answer_length", DWORD), ("answer", OctetsPointer), ("ErrorCode", DWORD))


class GetRevocations(Activate):
    opnum = 2


class GetRevocationsResponse(ActivateResponse):
    pass


class Release(Activate):
    opnum = 1


class ReleaseResponse(ActivateResponse):
    pass


def connect(port, max_fragment=None):
    rpc = transport.DCERPCTransportFactory(f"ncacn_ip_tcp:127.0.0.1[{port}]").get_dce_rpc()
    rpc.connect()
    if max_fragment:
        rpc.set_max_fragment_size(max_fragment)
    return rpc


def call(rpc, kind, argument):
    request = kind()
    request["request_length"] = len(argument)
    request["request"] = [bytes([octet]) for octet in argument]
    response = rpc.request(request, checkError=False)
    answer = response.fields["answer"].fields["Data"] if response["answer_length"] else None
    return {
        "length": response["answer_length"],
        "answer": None if answer is None else b"".join(answer["Data"]).hex(),
        "result": response["ErrorCode"],
    }


def failure(action, *arguments, **options):
    try:
        action(*arguments, **options)
    except DCERPCException as error:
        return str(error)
    return None


def main(port):
    report = {}
    rpc = connect(port)
    rpc.bind(INTERFACE)
    report["activate"] = call(rpc, Activate, bytes(range(220)))
    report["again"] = call(rpc, Activate, b"abc")
    report["empty"] = call(rpc, Activate, b"")
    report["revocations"] = call(rpc, GetRevocations, b"12345678")
    report["release"] = failure(call, rpc, Release, b"x")
    altered = rpc.alter_ctx(INTERFACE)
    report["altered"] = call(altered, Activate, b"altered")
    report["alter_other"] = failure(rpc.alter_ctx, OTHER)
    rpc.disconnect()

    small = connect(port, max_fragment=100)
    small.bind(INTERFACE)
    report["fragments"] = call(small, Activate, bytes(range(256)) * 16)
    small.disconnect()

    several = connect(port)
    several.bind(INTERFACE, bogus_binds=40)
    report["several"] = call(several, Activate, b"several")
    several.disconnect()

    other = connect(port)
    report["other"] = failure(other.bind, OTHER)
    ndr64 = connect(port)
    report["ndr64"] = failure(ndr64.bind, INTERFACE, transfer_syntax=("71710533-beba-4937-8319-b5dbef9ccc36", "1.0"))
    authenticated = connect(port)
    authenticated.set_credentials("user", "password")
    authenticated.set_auth_level(2)
    report["authenticated"] = failure(authenticated.bind, INTERFACE)
    json.dump(report, sys.stdout)


main(int(sys.argv[1]))
