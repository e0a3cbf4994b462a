"""Shards in an S3 bucket: listed, copied whole to be indexed, and read in ranges while a run trains.

boto3 finds credentials and the endpoint as it does everywhere: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, the
machine's role; AWS_ENDPOINT_URL_S3 names another server of the same protocol. It is imported at first use only.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

from training.engine.shards import CHUNK, CorpusRefused, Status, Tell

SCHEME = "s3://"
Value = TypeVar("Value")

# Somebody may be waiting for a list; a run waits longer, since whoever it is that does not answer often does a little later.
LISTING_TRIES, READING_TRIES = 2, 6
FIRST_PAUSE_SECONDS = 0.5
CONNECT_SECONDS, READ_SECONDS = 5, 30
CONNECTIONS = 32
# What a person can only mend: the rest may be over when it is tried again.
_MISSING = {"404", "NoSuchKey", "NotFound"}
_REFUSING = {
    "400",
    "401",
    "403",
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
}


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
        if not address.startswith(SCHEME) or not bucket:
            raise ValueError(f"{address} is no address in S3.")
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


def list_folder(folder: BucketPath) -> tuple[list[BucketPath], list[BucketPath]]:
    """(objects, folders) right in a folder, each by name. Raises CorpusRefused where the bucket cannot be read."""
    prefix = f"{folder.key}/" if folder.key else ""

    def ask() -> tuple[list[BucketPath], list[BucketPath]]:
        objects, folders = [], []
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=folder.bucket, Prefix=prefix, Delimiter="/")
        for page in pages:
            for each in page.get("Contents", ()):
                # Consoles make a folder as an empty object that is called like it.
                if each["Key"] != prefix:
                    status = Status(each["Size"], _nanoseconds(each["LastModified"]))
                    objects.append(BucketPath(folder.bucket, each["Key"], status))
            folders += [
                BucketPath(folder.bucket, each["Prefix"].rstrip("/")) for each in page.get("CommonPrefixes", ())
            ]
        return objects, folders

    objects, folders = _patiently(ask, folder, LISTING_TRIES)
    return sorted(objects, key=str), sorted(folders, key=str)


def status_of(path: BucketPath) -> Status:
    """Size and time of an object, as it was listed or as it is now. Raises CorpusRefused where it is missing."""
    if path.status is not None:
        return path.status
    said = _patiently(lambda: _client().head_object(Bucket=path.bucket, Key=path.key), path, READING_TRIES)
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
    span = f"bytes={offset}-{offset + size - 1}"

    def ask() -> bytes:
        content: bytes = _client().get_object(Bucket=path.bucket, Key=path.key, Range=span)["Body"].read()
        return content

    return _patiently(ask, path, READING_TRIES)


def read_chunks(path: BucketPath, tell: Tell = lambda count: None) -> Iterator[bytes]:
    """An object from its beginning, which goes on where a connection broke, unless the object is another one by then."""
    done, tag = 0, ""
    size = status_of(path).size
    while done < size:

        def ask(done: int = done, tag: str = tag) -> Any:
            same = {"IfMatch": tag} if tag else {}
            return _client().get_object(Bucket=path.bucket, Key=path.key, Range=f"bytes={done}-", **same)

        said = _patiently(ask, path, READING_TRIES)
        tag, before = said["ETag"], done
        try:
            while chunk := said["Body"].read(CHUNK):
                done += len(chunk)
                tell(len(chunk))
                yield chunk
        except _transport_errors():
            # Where nothing at all came it is not asked for without end.
            if done == before:
                raise _unreachable(path) from None
            continue
        if done == before:
            return


def _nanoseconds(time_of_change: Any) -> int:
    return round(time_of_change.timestamp()) * 10**9


def _patiently(ask: Callable[[], Value], path: BucketPath, tries: int) -> Value:
    """What `ask` returns, tried again where the network or the server may only be busy. Raises CorpusRefused."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    for number in range(tries):
        if number:
            time.sleep(FIRST_PAUSE_SECONDS * 2 ** (number - 1))
        try:
            return ask()
        except (NoCredentialsError, PartialCredentialsError):
            raise CorpusRefused(f"There are no credentials for the bucket {path.bucket} in the environment.") from None
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if refused := _refusal(code, path):
                raise refused from None
        except (BotoCoreError, OSError, *_transport_errors()):
            continue
    raise _unreachable(path)


def _refusal(code: str, path: BucketPath) -> CorpusRefused | None:
    """What another try would not change."""
    if code == "NoSuchBucket":
        return CorpusRefused(f"There is no bucket {path.bucket}.")
    if code in _MISSING:
        return CorpusRefused(f"The shard {path.name} is missing.")
    if code in _REFUSING:
        return CorpusRefused(f"The bucket {path.bucket} may not be read with the credentials of this server ({code}).")
    if code in ("PreconditionFailed", "412", "InvalidRange", "416"):
        return CorpusRefused(f"The shard {path.name} changed while it was read.")
    return None


def _unreachable(path: BucketPath) -> CorpusRefused:
    return CorpusRefused(f"The bucket {path.bucket} does not answer at present.", retry=True)


def _transport_errors() -> tuple[type[Exception], ...]:
    """What may come out of a body that is being read."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    return HTTPClientError, IncompleteReadError, ResponseStreamingError, HTTPError


def _client() -> Any:
    return _client_of(os.getpid())


@lru_cache(maxsize=1)
def _client_of(process: int) -> Any:
    """One for all threads of a process; its connections must not be used beyond a fork."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise CorpusRefused("Buckets are read by boto3, which is not installed here: install the extra s3.") from None
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
    )
    return boto3.session.Session().client("s3", config=config)
