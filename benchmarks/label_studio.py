"""The peer of the rating benchmark: a running Label Studio, driven through its own API by as many raters.

Its administrator's token (an access token of the organisation, or a legacy one) makes a project with tasks and overlap 2, or
finds the one that an earlier run made, and reads the invitation, by which the raters sign up. Each then asks for its next
task and submits an annotation, without a pause. Label Studio hands out one task at a time; that is how it is measured.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx

CHUNK = 5000
OVERLAP = 2
CONFIG = (
    '<View><Image name="image" value="$image"/><Text name="prompt" value="$prompt"/>'
    '<Choices name="alignment" toName="image"><Choice value="pass"/><Choice value="fail"/></Choices></View>'
)


def measure(options: Any, rounds: Callable[[list[Any], float], Any]) -> Iterator[dict[str, Any]]:
    """One project for each size: one rater alone, then all."""
    from benchmarks.rating import describe

    admin = Administrator(options.label_studio, options.token)
    raters = [admin.new_rater() for _ in range(options.raters)]
    for items in sorted(set(options.items)):
        started = time.perf_counter()
        project = admin.find_project(items)
        if project is None:
            project = admin.new_project(items)
            yield {
                "unit": "seconds",
                "what": "making the project in Label Studio",
                "items": items,
                "value": round(time.perf_counter() - started, 1),
            }
        clients = [Rater(options.label_studio, cookies, project) for cookies in raters]
        for who in (clients[:1], clients):
            times = rounds(who, options.seconds)
            for measurement in describe(times, items=items, raters=len(who), count=1):
                yield {**measurement, "of": f"Label Studio at {options.label_studio}"}


class Administrator:
    """Sets up what the raters need."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address.rstrip("/"), token
        self.client = httpx.Client(base_url=self.address, timeout=600)

    def find_project(self, items: int) -> int | None:
        """The id of the newest project of so many tasks that an earlier run made and filled."""
        answer = self._ask("GET", "/api/projects/?page_size=1000&ordering=-id")
        for project in answer["results"]:
            if project["title"] == _title(items) and project["task_number"] == items:
                return int(project["id"])
        return None

    def new_project(self, items: int) -> int:
        """The id of a new project with so many tasks."""
        made = self._ask(
            "POST",
            "/api/projects/",
            {"title": _title(items), "label_config": CONFIG, "maximum_annotations": OVERLAP},
        )
        for start in range(0, items, CHUNK):
            tasks = [
                {"image": f"/static/{number}.png", "prompt": f"a sticker of thing {number}"}
                for number in range(start, min(items, start + CHUNK))
            ]
            self._ask("POST", f"/api/projects/{made['id']}/import", tasks)
        return int(made["id"])

    def new_rater(self) -> dict[str, str]:
        """The cookies of a new member of the organisation who has just signed up."""
        invitation = self._ask("GET", "/api/invite")["invite_url"]
        with httpx.Client(base_url=self.address, timeout=120, follow_redirects=True) as client:
            page = client.get(invitation)
            found = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
            if found is None:
                raise SystemExit(f"Label Studio's page {invitation} has no form to sign up with.")
            client.post(
                invitation,
                data={
                    "csrfmiddlewaretoken": found[1],
                    "email": f"rater-{uuid.uuid4().hex[:12]}@bench.example",
                    "password": uuid.uuid4().hex,
                },
                headers={"Referer": self.address},
            ).raise_for_status()
            if "sessionid" not in client.cookies:
                raise SystemExit("Label Studio did not let a rater sign up.")
            return dict(client.cookies)

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._access()}" if self.token.count(".") == 2 else f"Token {self.token}"}
        response = self.client.request(method, path, json=body, headers=headers)
        if response.status_code >= 400:
            raise SystemExit(f"Label Studio answered {response.status_code} to {method} {path}: {response.text[:300]}")
        return response.json()

    def _access(self) -> str:
        # What it gives is good for five minutes; an import may take longer.
        answer = self.client.post("/api/token/refresh/", json={"refresh": self.token})
        if answer.status_code >= 400:
            raise SystemExit(f"Label Studio does not take the token: {answer.text[:300]}")
        return str(answer.json()["access"])


def _title(items: int) -> str:
    return f"Benchmark of {items} tasks with overlap {OVERLAP}"


class Rater:
    """A signed-in rater with a connection of its own, as benchmarks.rating.rounds wants it."""

    def __init__(self, address: str, cookies: dict[str, str], project: int) -> None:
        from benchmarks.serving import Web

        self.project = project
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        self.web = Web(address, {"Cookie": cookie, "X-CSRFToken": cookies["csrftoken"], "Referer": address})

    def lease(self) -> int | None:
        """The next task; None where nothing is left."""
        try:
            return int(json.loads(self.web.ask("GET", f"/api/projects/{self.project}/next"))["id"])
        except ValueError as error:
            if "404" in str(error):
                return None
            raise

    def submit(self, task: int) -> int:
        """One annotation."""
        choice = {"from_name": "alignment", "to_name": "image", "type": "choices", "value": {"choices": ["pass"]}}
        self.web.ask("POST", f"/api/tasks/{task}/annotations/", {"result": [choice], "lead_time": 1.0})
        return 1
