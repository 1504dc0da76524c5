"""A stock DCE/RPC server with an interface that nobody has, run by an interpreter that has impacket; says its port."""

import contextlib
import socket

from impacket.dcerpc.v5.rpcrt import DCERPCServer

server = DCERPCServer()
server.addCallbacks(("6a2f3c1e-0000-4000-8000-0123456789ab", "1.0"), "1688", {})
server.daemon = True
server.start()
address = ("127.0.0.1", server.getListenPort())
# Its thread listens some time after it was started.
listens = False
while not listens:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(address):
        listens = True
print(address[1], flush=True)
server.join()
