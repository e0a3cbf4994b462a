"""Shards in an S3 bucket: listed, copied whole to be indexed, and read in ranges while a run trains.

boto3 finds credentials and the endpoint as it does everywhere: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, the
machine's role; AWS_ENDPOINT_URL_S3 names another server of the same protocol. It is imported at first use only.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

from training.engine.shards import CHUNK, CorpusRefused, Status, Tell

SCHEME = "s3://"
# The names that S3 has ever allowed; "arn:..." and the like are addresses of other things.
BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Patience:
    """How long a bucket is asked for one thing: again while `seconds` are not over, each time at most `answer_seconds` for an
    answer. The last try may begin when they nearly are."""

    seconds: float
    answer_seconds: float
    connect_seconds: float = 3


# Somebody waits for the page; a trainer that is told to stop has half a minute to save what it learned.
PAGE = Patience(seconds=3, answer_seconds=5, connect_seconds=2)
WORK = Patience(seconds=12, answer_seconds=10)
FIRST_PAUSE_SECONDS = 0.5
CONNECTIONS = 32
# A broken connection loses what was not yet taken from it.
PIECE = 2**16
# What may be over when it is asked again; anything else that a server says is for a person.
_BUSY_STATUSES, _BUSY_CODES = (
    {408, 429},
    re.compile(r"SlowDown|RequestTimeout|Throttl|TooManyRequests|ServiceUnavailable"),
)
_MISSING = {"404", "NoSuchKey", "NotFound"}
_CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"}

_clients: dict[tuple[int, Patience], Any] = {}
_making = threading.Lock()


class CorpusUnread(CorpusRefused):
    """A bucket that could not be looked into: nothing is known of what lies there."""


@dataclass(frozen=True)
class BucketPath:
    """An object in a bucket, or a folder of them, as far as S3 has folders; used where files have a `Path`. `key` neither
    begins nor ends with a slash. `status` is what a listing said of the object."""

    bucket: str
    key: str = ""
    status: Status | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, address: str) -> "BucketPath":
        """Of "s3://bucket/some/key". Raises ValueError for another address."""
        bucket, _, key = address.removeprefix(SCHEME).partition("/")
        if not address.startswith(SCHEME) or not BUCKET_NAME.fullmatch(bucket):
            raise ValueError(f"{address} is no address of a bucket: s3://BUCKET/PREFIX.")
        return cls(bucket, key.strip("/"))

    @property
    def name(self) -> str:
        """The part after the last slash; of a bucket itself its name."""
        return self.key.rpartition("/")[2] or self.bucket

    def __truediv__(self, below: str) -> "BucketPath":
        return BucketPath(self.bucket, "/".join(part for part in (self.key, below.strip("/")) if part))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")


def is_address(text: str) -> bool:
    """Whether a text names a place in S3 rather than a folder."""
    return text.startswith(SCHEME)


def list_folder(
    folder: BucketPath, *, patience: Patience | None = None, most: int | None = None, tell: Tell = lambda count: None
) -> tuple[list[BucketPath], list[BucketPath]]:
    """(tar files, folders) right in a folder, each by name; with `most` of the first so many names alone. `tell(0)` may raise
    to stop. Raises CorpusUnread where the bucket cannot be read."""
    prefix, patience = f"{folder.key}/" if folder.key else "", patience or WORK

    def ask() -> tuple[list[BucketPath], list[BucketPath]]:
        shards, folders = [], []
        pages = _client(patience).get_paginator("list_objects_v2")
        for page in pages.paginate(
            Bucket=folder.bucket, Prefix=prefix, Delimiter="/", PaginationConfig={"MaxItems": most}
        ):
            tell(0)
            for each in page.get("Contents", ()):
                if PurePosixPath(each["Key"]).suffix.lower() == ".tar":
                    status = Status(each["Size"], _nanoseconds(each["LastModified"]))
                    shards.append(BucketPath(folder.bucket, each["Key"], status))
            named = [each["Prefix"].removesuffix("/") for each in page.get("CommonPrefixes", ())]
            # Keys may have empty parts, which no folder has.
            folders += [BucketPath(folder.bucket, key) for key in named if key and not key.endswith("/")]
        return shards, folders

    shards, folders = _patiently(ask, folder, f"There is no folder {folder.name} in the bucket.", patience, tell)
    return sorted(shards, key=str), sorted(folders, key=str)


def status_of(path: BucketPath) -> Status:
    """Size and time of an object, as it was listed or as it is now. Raises CorpusRefused where it is missing."""
    if path.status is not None:
        return path.status
    said = _patiently(lambda: _client(WORK).head_object(Bucket=path.bucket, Key=path.key), path)
    return Status(said["ContentLength"], _nanoseconds(said["LastModified"]))


def with_status(paths: Sequence[BucketPath]) -> list[BucketPath]:
    """The same objects of one folder with what one listing of it says of them now; a missing one raises CorpusRefused."""
    if not paths:
        return []
    folder = BucketPath(paths[0].bucket, paths[0].key.rpartition("/")[0])
    listed = {each.key: each for each in list_folder(folder)[0]}
    return [replace(path, status=status_of(listed.get(path.key, path))) for path in paths]


def read_range(path: BucketPath, offset: int, size: int) -> bytes:
    """`size` bytes of an object from `offset`, fewer where it ends before. Raises CorpusRefused."""
    if not size:
        return b""

    def ask() -> bytes:
        said = _client(WORK).get_object(Bucket=path.bucket, Key=path.key, Range=f"bytes={offset}-{offset + size - 1}")
        _check_part(said, path, offset)
        content = b""
        with closing(said["Body"]) as body:
            # What comes to an end too early is only noticed by asking for more.
            while len(content) < size and (piece := body.read(size - len(content))):
                content += piece
        return content

    return _patiently(ask, path)


def read_chunks(path: BucketPath, tell: Tell = lambda count: None) -> Iterator[bytes]:
    """An object from its beginning. Where a connection breaks it goes on from there, unless the object is another one by then.
    `tell` is told of each chunk's bytes, and of 0 now and then while nothing comes."""
    done, tag, size = 0, "", status_of(path).size
    while done < size:

        def ask(done: int = done, tag: str = tag) -> Any:
            same = {"IfMatch": tag} if tag else {}
            said = _client(WORK).get_object(Bucket=path.bucket, Key=path.key, Range=f"bytes={done}-", **same)
            _check_part(said, path, done)
            # The first piece is a part of the asking: a server that sends none is asked again as one that does not answer.
            said["First"] = said["Body"].read(PIECE)
            return said

        said = _patiently(ask, path, tell=tell)
        tag = said.get("ETag", "")
        chunk, is_broken = said["First"], False
        try:
            while piece := said["Body"].read(PIECE):
                chunk += piece
                if len(chunk) >= CHUNK:
                    done += len(chunk)
                    tell(len(chunk))
                    yield chunk
                    chunk = b""
        except _transport_errors():
            is_broken = True
        if chunk:
            done += len(chunk)
            tell(len(chunk))
            yield chunk
        if not is_broken:
            return


def _check_part(said: Any, path: BucketPath, offset: int) -> None:
    if offset and said["ResponseMetadata"]["HTTPStatusCode"] != 206:
        raise CorpusUnread(f"The server of the bucket {path.bucket} does not send parts of objects.")


def _nanoseconds(time_of_change: Any) -> int:
    # Some servers know fractions of a second in their lists alone.
    return int(time_of_change.timestamp()) * 10**9


def _patiently(
    ask: Callable[[], Value],
    path: BucketPath,
    missing: str = "",
    patience: Patience | None = None,
    tell: Tell = lambda count: None,
) -> Value:
    """What `ask` returns, tried again where the network or the server may only be busy. `missing` is the sentence for what is
    not there. Raises CorpusRefused."""
    transport = _transport_errors()
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    end, pause = time.monotonic() + (patience or WORK).seconds, FIRST_PAUSE_SECONDS
    while True:
        try:
            return ask()
        except (NoCredentialsError, PartialCredentialsError):
            # A client looks for them once; they may be there the next time.
            forget_clients()
            raise CorpusUnread(
                f"There are no credentials for the bucket {path.bucket} in the environment.", retry=True
            ) from None
        except ClientError as error:
            if refused := _refusal(error, path, missing):
                raise refused from None
        except transport:
            pass
        except RecursionError:
            # What botocore makes of a server that redirects whatever is asked.
            raise CorpusUnread(
                f"The server of the bucket {path.bucket} sends requests elsewhere: look at its address and its region."
            ) from None
        except (BotoCoreError, ValueError) as error:
            raise CorpusUnread(f"The bucket {path.bucket} cannot be asked: {str(error)[:200]}") from None
        if time.monotonic() + pause > end:
            raise CorpusUnread(f"The bucket {path.bucket} does not answer at present.", retry=True)
        _sleep(pause, tell)
        pause *= 2


def _sleep(seconds: float, tell: Tell) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tell(0)
        time.sleep(min(left, 0.5))


def _refusal(error: Any, path: BucketPath, missing: str) -> CorpusRefused | None:
    """What another try would not change."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return CorpusUnread(f"There is no bucket {path.bucket}.")
    if code in _MISSING:
        return CorpusUnread(missing) if missing else CorpusRefused(f"The shard {path.name} is missing.")
    if code in _CHANGED:
        return CorpusRefused(f"The shard {path.name} changed while it was read.")
    if status >= 500 or status in _BUSY_STATUSES or _BUSY_CODES.search(code):
        return None
    return CorpusUnread(f"The bucket {path.bucket} refuses to be read by this server ({code or status}).")


def _transport_errors() -> tuple[type[Exception], ...]:
    """What a network does, in an answer's body too. Raises CorpusUnread without boto3."""
    try:
        from botocore import exceptions
        from urllib3.exceptions import HTTPError
    except ImportError:
        raise CorpusUnread("Buckets are read by boto3, which is not installed here: install the extra s3.") from None
    named = (
        "HTTPClientError",
        "IncompleteReadError",
        "ConnectionError",
        "CredentialRetrievalError",
        "MetadataRetrievalError",
    )
    return (*(getattr(exceptions, name) for name in named), HTTPError, OSError)


def forget_clients() -> None:
    """Look for credentials and the endpoint again at the next request."""
    _clients.clear()


def _client(patience: Patience) -> Any:
    """One for all threads of a process; its connections must not be used beyond a fork."""
    key = os.getpid(), patience
    with _making:
        if key not in _clients:
            _clients[key] = _make_client(patience)
        return _clients[key]


def _make_client(patience: Patience) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.answer_seconds,
        max_pool_connections=CONNECTIONS,
        # Other servers know no checksums, and every byte is hashed anyway.
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client("s3", config=config)
