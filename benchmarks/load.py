"""A load test of the API: many who submit, wait and read their results, with Locust.

    make run                                              # in another terminal; or any deployment
    make load USERS=50 SECONDS=60 URL=http://127.0.0.1:3001

`API_KEY` in the environment is sent as the key; `API_RATE_LIMIT=0` lets one key do all this. The
line "submit to result" is what a person waits, `QSTASH_DELAY` included; a failed analysis counts as
a failure.
"""

import os
import time

from locust import HttpUser, constant, task

from common.task import TASK

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 600
INPUT = TASK.example.model_dump(mode="json", by_alias=True)


class Person(HttpUser):  # type: ignore[misc]  # carries no types here
    """Sends one request after the other, each when the one before has come back."""

    wait_time = constant(0)

    def on_start(self) -> None:
        if key := os.environ.get("API_KEY"):
            self.client.headers["Authorization"] = f"Bearer {key}"

    @task  # type: ignore[untyped-decorator]  # the same
    def submit_and_wait(self) -> None:
        began = time.monotonic()
        accepted = self.client.post("/analyze", json=INPUT)
        if accepted.status_code != 202:
            time.sleep(POLL_SECONDS)  # Locust has counted it; don't hammer
            return
        status = "pending"
        while status in ("pending", "processing"):
            time.sleep(POLL_SECONDS)
            if time.monotonic() - began > PATIENCE_SECONDS:
                break
            shown = self.client.get(accepted.headers["Location"], name="/analyze/<id>")
            if shown.ok:
                status = shown.json()["status"]
        self.environment.events.request.fire(
            request_type="",
            name="submit to result",
            response_time=(time.monotonic() - began) * 1000,
            response_length=0,
            exception=None if status == "completed" else RuntimeError(status),
        )
