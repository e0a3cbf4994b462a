"""A real S3 server for tests, moto's, which can be told to be busy, to be cut off, or to be gone."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

NAME = "stickers"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    # Nobody's own settings, and no question to the machine that a cloud server might be.
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}

Start = Callable[..., Any]


class Bucket:
    """The bucket `NAME`. The next `busy` requests are refused, of the next `cut` answers only a half is sent, whose connection is
    reset at once where it `resets`, and while it `is_gone` nobody is answered. `asked` are the methods and paths of the requests."""

    def __init__(self) -> None:
        self.busy = self.cut = 0
        self.is_gone = self.resets = False
        self.asked: list[str] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.client: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        path = str(environ["PATH_INFO"])
        with self._lock:
            self.asked.append(f"{environ['REQUEST_METHOD']} {path}")
            is_busy, self.busy = self.busy > 0 or self.is_gone, max(0, self.busy - 1)
            is_cut = not is_busy and self.cut > 0 and environ["REQUEST_METHOD"] == "GET" and path.endswith(".tar")
            self.cut -= is_cut
        if is_busy:
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        answer = list(self._app(environ, start_response))
        if is_cut:
            whole = b"".join(answer)
            if self.resets:
                # Closed by a reset, which drops what the other side has not taken yet.
                environ["werkzeug.socket"].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # The length that was promised is the whole one's.
            return [whole[: len(whole) // 2]]
        return answer

    def put(self, folder: Path, prefix: str) -> None:
        """Copies the files of a folder below a prefix."""
        for path in sorted(folder.iterdir()):
            self.client.put_object(Bucket=NAME, Key=f"{prefix}/{path.name}", Body=path.read_bytes())

    def address(self, prefix: str = "") -> str:
        return f"s3://{NAME}/{prefix}".rstrip("/")


def refusing(code: str, status: int) -> Callable[[dict[str, Any], Start], list[bytes]]:
    """A server that refuses whatever is asked."""

    def refuse(environ: dict[str, Any], start_response: Start) -> list[bytes]:
        start_response(f"{status} Refused", [("Content-Type", "application/xml")])
        return [f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()] if code else []

    return refuse


@contextmanager
def running_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """The server, which boto3 finds by the environment, in processes that are started meanwhile too."""
    bucket = Bucket()
    server = make_server("127.0.0.1", 0, bucket, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": address}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    try:
        bucket.client = boto3.session.Session().client("s3", endpoint_url=address)
        # moto keeps what it has beside its servers.
        urlopen(Request(f"{address}/moto-api/reset", method="POST"), timeout=30).close()
        bucket.client.create_bucket(Bucket=NAME)
        bucket.asked.clear()
        yield bucket
    finally:
        server.shutdown()
        thread.join(30)
        server.server_close()
