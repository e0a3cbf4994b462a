"""A line to a server that can be cut: the browser's own switch is turned back while a page closes, which then sends."""

import socket
import threading
from contextlib import suppress


class Line:
    """Forwards what comes to `url` to the server at `port`, until it is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://localhost:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            for end in self._open:
                # Whoever waits for it hears of a shutdown, not of a close.
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._forward, args=[near], daemon=True).start()

    def _forward(self, near: socket.socket) -> None:
        with near, suppress(OSError):
            with self._lock:
                if self._is_cut:
                    return
                far = socket.create_connection(("localhost", self._port))
                self._open |= {near, far}
            with far:
                back = threading.Thread(target=_pump, args=[far, near], daemon=True)
                back.start()
                _pump(near, far)
                back.join()
            with self._lock:
                self._open -= {near, far}


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(65536):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
