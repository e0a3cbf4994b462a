"""Raters at work on the real web server and an embedded Postgres that flushes to the disk: leases, judgments, and the pages.

    python -m benchmarks.rating --items 10000 --items 1000000 --judgments 2700000 --raters 50 --seconds 60

For each size a campaign is made whose first items are judged already; then that many raters, each with an API token and a
connection of their own, lease 20 items and submit 20 judgments without a pause for so many seconds. They share the machine
with the server, so with many of them a request mostly waits for others: `one rater` says what one costs alone. Afterwards
SQL looks for items with too many judgments, of which there must be none, and the pages are read one after another.

The peer is a Label Studio server (`--label-studio`, see benchmarks/label_studio.py). Without one its figures are those that
were measured elsewhere, and the output says so.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.serving import Web, served, session_of

ROOT = Path(__file__).resolve().parents[1]
COUNT = 20
PAGE_READS, PAGE_SECONDS = 20, 40.0
# Label Studio 1.23.2 on two cores, gunicorn with 2 x 8 threads, Postgres 15, 16 raters, overlap 2, by number of tasks.
STATED_JUDGMENTS_A_SECOND = {10_000: 6.5, 100_000: 3.4}


@dataclass
class Options:
    """`items` of each campaign; `judgments` that the largest has already, while others are half done; `folder` to keep."""

    items: list[int] = field(default_factory=lambda: [10_000])
    judgments: int = 15_000
    raters: int = 50
    seconds: float = 5.0
    folder: Path | None = None
    label_studio: str = ""
    token: str = ""
    pages_alone: bool = False


@dataclass
class Times:
    """What the raters of one round saw: seconds of each request, and what was not as it should be."""

    lease: list[float] = field(default_factory=list)
    submit: list[float] = field(default_factory=list)
    judgments: int = 0
    errors: list[str] = field(default_factory=list)
    ran_out: int = 0  # Raters for whom nothing was left before the round was over: it says little then.
    seconds: float = 0.0  # From the start of the round to its last answer.


# One rater's two requests. `lease()` gives what `submit(leased)` takes, None where nothing is left; `submit` gives how many
# judgments were stored. Both raise OSError or ValueError for what went wrong.
Client = Any


def measure(options: Options | None = None) -> Iterator[dict[str, Any]]:
    """The measurements in the order of the module's docstring; the peer's come last, where there is a peer."""
    options = options or Options()
    with served(options.folder) as (address, processes):
        yield from _measure_ours(options, address, processes)
    if options.label_studio:
        from benchmarks import label_studio

        yield from label_studio.measure(options, rounds)
    else:
        yield {
            "what": "judgments a second of Label Studio",
            "value": None,
            "skipped": "No running Label Studio was given; name one with --label-studio URL --token TOKEN.",
        }


def rounds(clients: list[Client], seconds: float) -> Times:
    """All clients at work, without a pause, each in a thread of its own."""
    times, lock = Times(), threading.Lock()
    began = time.monotonic()
    until = began + seconds

    def work(client: Client) -> None:
        mine = Times()
        while time.monotonic() < until:
            try:
                started = time.perf_counter()
                leased = client.lease()
                between = time.perf_counter()
                mine.lease.append(between - started)
                if leased is None:
                    mine.ran_out = 1
                    break
                mine.judgments += client.submit(leased)
                mine.submit.append(time.perf_counter() - between)
            except (OSError, ValueError, http.client.HTTPException) as error:
                mine.errors.append(f"{type(error).__name__}: {error}"[:200])
                time.sleep(0.2)
        with lock:
            times.lease += mine.lease
            times.ran_out += mine.ran_out
            times.submit += mine.submit
            times.judgments += mine.judgments
            times.errors += mine.errors

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.seconds = time.monotonic() - began
    return times


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """{median_ms, p95_ms} of some durations, the p95 as the value that 95% do not exceed; empty where there are none."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {
        "median_ms": round(1000 * statistics.median(ordered), 1),
        "p95_ms": round(1000 * ordered[max(0, -(-95 * len(ordered) // 100) - 1)], 1),
    }


def cpu_seconds(processes: list[int]) -> float:
    """What these processes and their children have used so far, which does not depend on what else the machine does."""
    used = 0.0
    for pid in processes:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used += times.user + times.system + times.children_user + times.children_system
    return used


class Rater:
    """A rater of ours: a token and a connection that is kept open."""

    def __init__(self, address: str, token: str, slug: str) -> None:
        self.web = Web(address, {"Authorization": f"Bearer {token}"})
        self.slug = slug

    def lease(self) -> list[dict[str, Any]] | None:
        answer = self.web.ask("POST", f"/api/campaigns/{self.slug}/lease", {"count": COUNT})
        return json.loads(answer)["items"] or None

    def submit(self, leased: list[dict[str, Any]]) -> int:
        now = datetime.now(UTC).isoformat()
        rows = [
            {
                "id": str(uuid.uuid4()),
                "assignment": item["assignment"],
                "answers": {"alignment": "pass" if item["item"] % 5 else "fail"},
                "shown_at": now,
                "decided_at": now,
                "order": [],
                "supersedes": None,
            }
            for item in leased
        ]
        results = json.loads(self.web.ask("POST", "/api/judgments", {"judgments": rows}))["results"]
        if refused := [result["reason"] for result in results if result["status"] != "stored"]:
            raise ValueError(f"{len(refused)} judgments were not stored: {refused[0]}")
        return len(results)


def _measure_ours(options: Options, address: str, processes: list[int]) -> Iterator[dict[str, Any]]:
    from benchmarks import workspace

    curator, raters = workspace.make_people(options.raters)
    tokens = workspace.make_tokens(raters)
    largest = max(options.items)
    p95 = {}
    for items in sorted(set(options.items)):
        started = time.perf_counter()
        judgments = options.judgments if items == largest else items * workspace.OVERLAP // 2
        campaign = workspace.make_campaign(
            f"bench-{items}", items=items, judgments=judgments, by=curator, raters=raters
        )
        yield {
            "unit": "seconds",
            "what": "making the workspace in SQL",
            "items": items,
            "judgments": judgments,
            "value": round(time.perf_counter() - started, 1),
        }
        if options.pages_alone:
            continue
        clients = [Rater(address, token, campaign.slug) for token in tokens]
        for client in clients[:1]:
            client.submit(client.lease() or [])
        for who in (clients[:1], clients):
            before = cpu_seconds(processes)
            times = rounds(who, options.seconds)
            spent = cpu_seconds(processes) - before
            p95[items, len(who)] = milliseconds(times.lease).get("p95_ms", 0.0)
            yield from describe(times, items=items, raters=len(who), **_stated(items))
            if times.judgments:
                yield {
                    "unit": "ms",
                    "what": "CPU time of web server and database for one judgment, its lease included",
                    "value": round(1000 * spent / times.judgments, 2),
                    "items": items,
                    "raters": len(who),
                }
    if not options.pages_alone:
        yield from _ratios(p95, options)
        found = workspace.violations()
        yield {
            "unit": "items",
            "what": "violations, looked for by SQL after all rounds; all must be 0",
            "value": sum(found.values()),
            **found,
        }
    yield from _pages(address, campaign, curator, raters[0])


def describe(times: Times, **facts: Any) -> Iterator[dict[str, Any]]:
    """A round as measurements: lease and submit with medians and p95, and judgments a second."""
    load = round(os.getloadavg()[0], 2)
    share = {key: facts[key] for key in ("items", "raters")}
    for what, seen in (("lease", times.lease), ("submit", times.submit)):
        yield {
            "unit": "ms",
            "what": f"{what} of {facts.get('count', COUNT)}",
            **milliseconds(seen),
            "requests": len(seen),
            **share,
            "load": load,
        }
    # A round in which nothing was left to judge has no rate.
    rate = times.judgments / times.seconds if times.judgments or not times.ran_out else None
    peer = facts.get("peer_value")
    yield {
        "unit": "judgments a second",
        "value": None if rate is None else round(rate, 1),
        **{key: value for key, value in facts.items() if key != "count"},
        "ratio": round(rate / peer, 1) if peer and rate is not None else None,
        "errors": len(times.errors),
        **({"raters_with_nothing_left": times.ran_out} if times.ran_out else {}),
        **({"first_error": times.errors[0]} if times.errors else {}),
        "load": load,
    }


def _stated(items: int) -> dict[str, Any]:
    nearest = min(STATED_JUDGMENTS_A_SECOND, key=lambda tasks: abs(tasks - items))
    return {
        "peer": f"Label Studio 1.23.2 with 16 raters at {nearest:,} tasks, one at a time, on other two cores: stated, not measured in this run",
        "peer_value": STATED_JUDGMENTS_A_SECOND[nearest],
    }


def _ratios(p95: dict[tuple[int, int], float], options: Options) -> Iterator[dict[str, Any]]:
    smallest, largest = min(options.items), max(options.items)
    for who in sorted({1, options.raters}):
        if smallest < largest and p95[smallest, who]:
            yield {
                "unit": "ratio",
                "what": f"lease p95 at {largest:,} items to that at {smallest:,}, {who} raters",
                "value": round(p95[largest, who] / p95[smallest, who], 2),
                "aim": 1.5,
            }


def _pages(address: str, campaign: Any, curator: Any, rater: Any) -> Iterator[dict[str, Any]]:
    from django.urls import reverse

    from curation.models import Judgment

    judgments = Judgment.objects.filter(item__campaign=campaign).count()
    pages = {
        "home, of a rater": (rater, "/"),
        "home, of a curator": (curator, "/"),
        "campaigns": (curator, reverse("campaigns")),
        "campaign": (curator, campaign.get_absolute_url()),
        "campaign's curve": (curator, reverse("campaign_curve", args=[campaign.slug])),
        "raters beside each other": (curator, reverse("campaign_reliability", args=[campaign.slug])),
        "rating screen": (rater, reverse("rate", args=[campaign.slug])),
        "list of campaigns in the API": (rater, "/api/campaigns"),
    }
    for name, (person, path) in pages.items():
        web = Web(address, {"Cookie": f"sessionid={session_of(person)}"})
        times: list[float] = []
        failed: dict[str, str] = {}
        until = time.monotonic() + PAGE_SECONDS
        while len(times) < PAGE_READS and (time.monotonic() < until or not times):
            started = time.perf_counter()
            try:
                web.ask("GET", path)
            except TimeoutError:
                failed = {"failed": f"no answer within {web.seconds} s"}
                break
            times.append(time.perf_counter() - started)
        # The first read is of a cold page, and counts as any other.
        yield {
            "unit": "ms",
            "what": f"page: {name}",
            **milliseconds(times),
            **failed,
            "reads": len(times),
            "judgments": judgments,
            "aim_p95_ms": 100,
            "load": round(os.getloadavg()[0], 2),
        }


def main(arguments: list[str]) -> None:
    """Reads the options, and prints one JSON object a measurement."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rating",
        description="Raters at work on the real web server; see the head of this file.",
    )
    parser.add_argument("--items", type=int, action="append", help="items of a campaign; may be given more than once")
    parser.add_argument(
        "--judgments", type=int, help="judgments that the largest campaign has already (default: half of what it wants)"
    )
    parser.add_argument("--raters", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--data-dir", type=Path, help="keep the workspace here, and use it again")
    parser.add_argument("--pages-alone", action="store_true", help="read the pages, without any rater at work")
    parser.add_argument("--label-studio", default="", metavar="URL", help="a running Label Studio to drive as well")
    parser.add_argument("--token", default="", help="an API token of its administrator")
    given = parser.parse_args(arguments)
    items = given.items or [10_000]
    options = Options(
        items=items,
        judgments=given.judgments if given.judgments is not None else max(items) * 3 // 2,
        raters=given.raters,
        seconds=given.seconds,
        folder=given.data_dir.absolute() if given.data_dir else None,
        label_studio=given.label_studio,
        token=given.token,
        pages_alone=given.pages_alone,
    )
    for measurement in measure(options):
        print(json.dumps({"benchmark": "rating", **measurement}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
