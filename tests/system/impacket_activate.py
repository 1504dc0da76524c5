"""Run by an interpreter that has impacket: sends a request (hex) to the port given, prints the outcome.

Every client of the interface could do this from docs/kms_fast.idl.
"""

import json
import sys

from impacket.dcerpc.v5 import transport
from impacket.dcerpc.v5.dtypes import DWORD
from impacket.dcerpc.v5.ndr import NDRCALL, NDRPOINTER, NDRUniConformantArray
from impacket.uuid import uuidtup_to_bin


class Octets(NDRUniConformantArray):
    item = "c"


class OctetsPointer(NDRPOINTER):
    referent = (("Data", Octets),)


class Activate(NDRCALL):
    opnum = 0
    structure = (("request_length", DWORD), ("request", Octets))


class ActivateResponse(NDRCALL):
    structure = (("answer_length", DWORD), ("answer", OctetsPointer), ("ErrorCode", DWORD))


def main(port: str, argument: bytes) -> None:
    rpc = transport.DCERPCTransportFactory(f"ncacn_ip_tcp:127.0.0.1[{port}]").get_dce_rpc()
    rpc.connect()
    rpc.bind(uuidtup_to_bin(("f96e4d9c-c270-4994-be5f-bbef9f3235ea", "1.0")))
    call = Activate()
    call["request_length"] = len(argument)
    call["request"] = [bytes([octet]) for octet in argument]
    response = rpc.request(call, checkError=False)
    answer = response.fields["answer"].fields["Data"] if response["answer_length"] else None
    octets = None if answer is None else b"".join(answer["Data"]).hex()
    json.dump({"answer": octets, "result": response["ErrorCode"]}, sys.stdout)


main(sys.argv[1], bytes.fromhex(sys.argv[2]))
