"""What can be done by a job: functions registered under a kind.

    @handler("generation.draw_batch", queue=Queue.GENERATE)
    def draw_batch(context: JobContext) -> dict[str, Any]: ...

They live in the `tasks` module of each app, which is imported at the first look-up. A handler may run more than once for
the same job (a worker dies, another goes on), so it starts from what is there already and writes inside `context.fenced()`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.module_loading import autodiscover_modules

from jobs.models import Queue

if TYPE_CHECKING:
    from jobs.context import JobContext

HandlerFunction = Callable[["JobContext"], "dict[str, Any] | None"]


@dataclass(frozen=True)
class Handler:
    """`schema` is the newest form of the payload that the code understands; `stall_seconds` is how long it may go without
    any sign (progress, check, event, a fenced write) before its process is given up. `once` are keys of the payload that ask
    for something this once: who queues a failed or cancelled job again does not ask for it again. `gives_way` says that it keeps
    what it goes on from when it is paused, so that it can stop in the middle for a more urgent job."""

    kind: str
    run: HandlerFunction
    queue: Queue
    max_attempts: int
    schema: int
    stall_seconds: float
    once: frozenset[str] = frozenset()
    gives_way: bool = False


class UnknownKind(LookupError):
    """No handler is registered under the kind."""


_handlers: dict[str, Handler] = {}
_discovered = False


def handler(
    kind: str,
    *,
    queue: Queue,
    max_attempts: int = 5,
    schema: int = 1,
    stall_seconds: float = 3600,
    once: Sequence[str] = (),
    gives_way: bool = False,
) -> Callable[[HandlerFunction], HandlerFunction]:
    """Register a function as the handler of a kind of job. Raises ValueError when another function has the kind."""

    def register(function: HandlerFunction) -> HandlerFunction:
        known = _handlers.get(kind)
        if known is not None and (known.run.__module__, known.run.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ValueError(f"The kind {kind} is registered by {known.run.__module__}.{known.run.__qualname__}.")
        _handlers[kind] = Handler(
            kind, function, queue, max_attempts, schema, stall_seconds, frozenset(once), gives_way
        )
        return function

    return register


def find_handler(kind: str) -> Handler:
    """The handler of a kind. Raises UnknownKind."""
    if kind not in _handlers:
        _discover()
    try:
        return _handlers[kind]
    except KeyError:
        raise UnknownKind(kind) from None


def gives_way(queue: Queue) -> list[str]:
    """The kinds of a queue whose jobs can stop in the middle for a more urgent one."""
    _discover()
    return [each.kind for each in _handlers.values() if each.queue == queue and each.gives_way]


def _discover() -> None:
    global _discovered
    if not _discovered:
        _discovered = True
        autodiscover_modules("tasks")
