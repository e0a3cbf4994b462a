"""A simulated rater: leases, looks and submits through the HTTP endpoints, with a token, as any program may."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
from PIL import Image

from config.loop.eye import Eye, cover, decode

LEASE = 10
PATIENCE_SECONDS = 240.0


class Unreachable(Exception):
    """The server did not answer for longer than a rater waits."""


@dataclass
class Rater:
    """One simulated rater of one campaign."""

    web_url: str
    token: str
    eye: Eye
    submitted: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)

    def rate(self, slug: str) -> int:
        """Judge whatever is left in the campaign; the number of judgments that the server acknowledged.

        A request that fails is sent again with the same ids, so that nothing is lost or counted twice.
        """
        stored = 0
        with httpx.Client(
            base_url=self.web_url, headers={"Authorization": f"Bearer {self.token}"}, timeout=20
        ) as client:
            while True:
                leased = self._post(client, f"/api/campaigns/{slug}/lease", {"count": LEASE})
                if not leased["items"]:
                    return stored
                rows = [self._judge(client, item, leased["questions"]) for item in leased["items"]]
                results = self._post(client, "/api/judgments", {"judgments": rows})["results"]
                for result in results:
                    if result["status"] == "rejected":
                        self.rejected.append(f"{result['id']}: {result['reason']}")
                    else:
                        self.submitted.append(result["id"])
                        stored += 1
                if all(result["status"] == "rejected" for result in results):
                    return stored

    def _judge(self, client: httpx.Client, item: dict[str, Any], questions: list[dict[str, Any]]) -> dict[str, Any]:
        shown = datetime.now(UTC)
        images = [decode(_patiently(partial(client.get, image["url"])).content) for image in item["images"]]
        answers = {question["name"]: self._answer(question, images, item["prompt"]) for question in questions}
        return {
            "id": str(uuid.uuid4()),
            "assignment": item["assignment"],
            "answers": answers,
            "shown_at": shown.isoformat(),
            "decided_at": datetime.now(UTC).isoformat(),
            "order": item.get("order", []),
            "supersedes": None,
        }

    def _answer(self, question: dict[str, Any], images: list[Image.Image], prompt: str) -> str:
        values: list[str] = [choice["value"] for choice in question["choices"]]
        if len(images) == 2:
            better = self.eye.prefers(images)
            return "tie" if better is None else ["left", "right"][better]
        if "style" in question["name"]:
            good = self.eye.is_house_style(images[0])
        elif "quality" in question["name"]:
            good = 0.02 < cover(images[0]) < 0.98
        else:
            good = self.eye.is_aligned(images[0], prompt)
        return values[0] if good != self.eye.slips() else values[1]

    def _post(self, client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = _patiently(lambda: client.post(path, json=body)).json()
        return answer


def _patiently(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer, asked for again while the server is away; a refusal (4xx) is final."""
    until = time.monotonic() + PATIENCE_SECONDS
    wait = 0.2
    while True:
        try:
            response = ask()
            if response.status_code < 500:
                return response.raise_for_status()
            trouble = f"{response.status_code} of {response.request.url.path}"
        except httpx.TransportError as error:
            trouble = type(error).__name__
        if time.monotonic() > until:
            raise Unreachable(f"The web server did not answer for {PATIENCE_SECONDS:.0f} s ({trouble}).")
        time.sleep(wait)
        wait = min(wait * 1.7, 3.0)
