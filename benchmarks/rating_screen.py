"""From a key to the paint of what comes next, on the rating screen in a real Chromium, against the real web server.

A rater judges 512 px stickers with one key each, about five a second, once on the machine's own connection and once with
400 ms of latency added to every request, in turns. A key's time runs from the moment at which the browser took it (the
event's time stamp) to the end of the next frame, which shows the next sticker, whose picture must be decoded by then. At 60
frames a second a key waits up to 16.7 ms for that frame, whatever the page does; what it computes before and in the frame is
told without that wait, too. What the key sets off must send no request, and in the end every key must be one judgment that
the server has. Browser, web server and database share the machine.

Needs a Chromium: CHROMIUM names it, else it is looked for. Headless browsers paint on the CPU.
"""

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks.rating import milliseconds
from benchmarks.serving import served, session_of

KEYS, TURNS, WARM_UP = 100, 2, 10
LATENCIES_MS = (0, 400)
# Between two keys: faster than anyone judges for long, and out of step with the frames.
PAUSE_SECONDS = 0.187
AIM_P95_MS = 16.7
NAMES = ("chromium", "chromium-browser", "google-chrome")
SIDE = 512

# Marks when a key was taken, when its handlers were through, and when the frame after it was done; and when requests begin.
WATCH = """
window.seen = { keys: [], requests: [] };
const frame = (begun, done) => requestAnimationFrame(() => {
  begun();
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = done;
  port2.postMessage(0);
});
addEventListener("keydown", (event) => {
  const key = { taken: event.timeStamp };
  frame(() => { key.framed = performance.now(); }, () => {
    const picture = document.querySelector("#rate img");
    key.painted = performance.now();
    key.decoded = Boolean(picture && picture.complete && picture.naturalWidth);
    window.seen.keys.push(key);
  });
  // Whether or not the page lets the event go on.
  const through = () => { key.handled ??= performance.now(); };
  setTimeout(through);
  addEventListener("keydown", through, { once: true });
}, true);
const begins = (call) => function (...given) {
  window.seen.requests.push(performance.now());
  return call.apply(this, given);
};
window.fetch = begins(window.fetch);
navigator.sendBeacon = begins(navigator.sendBeacon);
XMLHttpRequest.prototype.send = begins(XMLHttpRequest.prototype.send);
"""


@dataclass
class Seen:
    """What the keys of one latency took, in seconds."""

    to_paint: list[float] = field(default_factory=list)
    computed: list[float] = field(default_factory=list)
    undecoded: int = 0
    requests: int = 0

    def take(self, seen: dict[str, Any]) -> None:
        keys = seen["keys"][WARM_UP:]
        self.to_paint += [(key["painted"] - key["taken"]) / 1000 for key in keys]
        self.computed += [(key["handled"] - key["taken"] + key["painted"] - key["framed"]) / 1000 for key in keys]
        self.undecoded += sum(not key["decoded"] for key in keys)
        self.requests += sum(key["taken"] <= at <= key["handled"] for key in keys for at in seen["requests"])


def measure() -> Iterator[dict[str, Any]]:
    """Key to paint by latency, their ratio, and whether each key became one judgment."""
    with served(None) as (address, _):
        from curation.models import Judgment

        pressed = len(LATENCIES_MS) * TURNS * (KEYS + WARM_UP)
        slug, session = _make_campaign(pressed + 50)
        found = {latency: Seen() for latency in LATENCIES_MS}
        for _turn in range(TURNS):
            for latency in LATENCIES_MS:
                found[latency].take(_judge(address, slug, session, latency))
        yield from _describe(found)
        yield {
            "unit": "judgments",
            "what": "that the server has, of so many keys",
            "value": Judgment.objects.count(),
            "aim": pressed,
        }


def _describe(found: dict[int, Seen]) -> Iterator[dict[str, Any]]:
    for latency, seen in found.items():
        yield {
            "unit": "ms",
            "what": "key to paint",
            "latency_ms": latency,
            **milliseconds(seen.to_paint),
            "without_the_wait_for_the_frame": milliseconds(seen.computed),
            "keys": len(seen.to_paint),
            "undecoded_pictures": seen.undecoded,
            "requests_sent_by_keys": seen.requests,
            "aim_p95_ms": AIM_P95_MS,
            "load": round(os.getloadavg()[0], 2),
        }
    quick, slow = (statistics.median(found[latency].to_paint) for latency in LATENCIES_MS)
    yield {
        "unit": "ratio",
        "what": f"median key to paint with {LATENCIES_MS[1]} ms of latency to that without",
        "value": round(slow / quick, 2),
    }


def _make_campaign(items: int) -> tuple[str, str]:
    """(slug, session of its rater): an open campaign of stickers with pictures of their own."""
    from benchmarks import workspace
    from curation.campaigns import create_campaign
    from curation.models import CampaignKind
    from generation.models import Sample

    curator, raters = workspace.make_people(1)
    batch = workspace.make_batch("screen", items, curator)
    prompts = list(batch.prompt_set.prompts.all())
    stored = [_draw(number) for number in range(items)]
    Sample.objects.bulk_create(
        Sample(
            batch=batch,
            prompt=prompts[number % len(prompts)],
            index=number // len(prompts),
            seed=number,
            image=each.image,
            thumbnail=each.thumbnail,
            width=SIDE,
            height=SIDE,
        )
        for number, each in enumerate(stored)
    )
    campaign = create_campaign(
        CampaignKind.ALIGNMENT, name="Screen", by=curator, batches=[batch], raters=raters, open_now=True
    )
    return campaign.slug, session_of(raters[0])


def _draw(number: int) -> Any:
    """A cut-out sticker with enough in it to take as long to decode as a drawn one."""
    import io

    import numpy
    from PIL import Image, ImageDraw

    from generation.images import store_with_thumbnail

    noise = numpy.random.default_rng(number).integers(0, 255, (SIDE // 4, SIDE // 4, 3), dtype=numpy.uint8)
    picture = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGBA")
    mask = Image.new("L", (SIDE, SIDE), 0)
    ImageDraw.Draw(mask).ellipse((20, 20, SIDE - 20, SIDE - 20), fill=255)
    picture.putalpha(mask)
    file = io.BytesIO()
    picture.save(file, "png")
    return store_with_thumbnail(file.getvalue())


def _judge(address: str, slug: str, session: str, latency: int) -> dict[str, Any]:
    """One visit to the screen: what its watch saw of `KEYS` keys and those before them that warm up."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 900})
        context.add_cookies([{"name": "sessionid", "value": session, "url": address}])
        context.add_init_script(WATCH)
        page = context.new_page()
        network = context.new_cdp_session(page)
        network.send("Network.enable")
        network.send(
            "Network.emulateNetworkConditions",
            {"offline": False, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1},
        )
        page.goto(f"/rate/{slug}/")
        page.wait_for_selector("#rate[data-state=ready]")
        for number in range(KEYS + WARM_UP):
            page.wait_for_selector("#rate[data-state=ready]")
            page.keyboard.press("fj"[number % 2])
            time.sleep(PAUSE_SECONDS)
        page.wait_for_selector("#rate-cloud-box[data-state=saved]")
        seen: dict[str, Any] = page.evaluate("window.seen")
        browser.close()
    return seen
