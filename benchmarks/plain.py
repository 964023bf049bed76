"""The least that this service could be: the same without its guarantees.

Flask on gunicorn as ours is started, the signature and the model call by our own modules, one read
and one write of Redis. No claim, no attempts, no deadline, no log, no metrics: what ours costs more
is the price of these.
"""

import gc
import json
import time
from threading import Lock

from flask import Flask, request
from redis import Redis

from common.environment import load
from common.settings import ServiceSettings
from common.task import TASK
from webhook_service.analyst import Analyst
from webhook_service.signature import verify

MAX_NEW_OBJECTS = 5_000  # as ours: with Python's default, looking for garbage costs a tenth
TTL_MS = 3_600_000


def create_app() -> Flask:
    """Make the WSGI application, with the settings of the service."""
    gc.set_threshold(MAX_NEW_OBJECTS)
    settings, opening = load(ServiceSettings), Lock()
    keys = (
        settings.qstash_current_signing_key.get_secret_value(),
        settings.qstash_next_signing_key.get_secret_value(),
    )
    clients: list[tuple[Redis, Analyst]] = []
    app = Flask(__name__)

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/webhook")
    def webhook() -> str:
        body = request.get_data()
        token = request.headers.get("Upstash-Signature")
        verify(token, body, url=str(settings.qstash_webhook_url), keys=keys)
        with opening:  # here, as connections don't outlive a fork
            if not clients:
                url = settings.redis_url.get_secret_value()
                clients.append((Redis.from_url(url, decode_responses=True), Analyst(settings)))
        redis, analyst = clients[0]
        request_id = json.loads(body)["requestId"]
        key = f"analysis:{{{request_id}}}"
        record = json.loads(str(redis.get(key)))
        form = TASK.form.model_validate(record["input"])
        answer = analyst.analyse(form, request_id)
        record |= {"status": "completed", "result": answer.analysis.model_dump(mode="json")}
        redis.set(key, json.dumps({**record, "finishedAtUnix": time.time()}), px=TTL_MS)
        return "done"

    return app
