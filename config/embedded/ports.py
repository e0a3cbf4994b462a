"""Ports on this machine's loopback: a free one is chosen once and remembered, so that a restart keeps its address."""

import socket
from pathlib import Path

from config.embedded.folder import read_json, write_json


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Servers set this too: connections that are only waiting to be forgotten do not keep a port busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose_port(data_dir: Path, name: str) -> int:
    """The port that the service `name` of this data folder used last, or a free one, which is then remembered."""
    path = data_dir / "run" / "ports.json"
    ports = read_json(path)
    port = ports.get(name)
    if not isinstance(port, int) or not is_free(port):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        write_json(path, {**ports, name: port})
    return port


def listener(port: int) -> str:
    """Which process listens on the port, in words; empty where the system does not tell."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:2] == (port,):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
