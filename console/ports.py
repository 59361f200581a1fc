"""TCP ports of the loopback interface."""

import socket

HOST = "127.0.0.1"


def in_use(port: int) -> bool:
    """True if a server could not listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
        return False


def free() -> int:
    """A port that nobody has now. Somebody may take it before you do."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
