"""An RPC server that does not know our interface, as a process: ``python foreign_server.py ADDRESS PORT``."""

import socket
import sys

from tests.rpc.pdus import NOT_OURS, bind_ack


def main() -> None:
    """Reject every bind as the standard says, until ended."""
    address, port = sys.argv[1:]
    with socket.create_server((address, int(port))) as listener:
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                if connection.recv(65_536):
                    connection.sendall(bind_ack(NOT_OURS))


if __name__ == "__main__":
    main()
