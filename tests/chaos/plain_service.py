"""A deliberately plain variant of the service, as one writes it at first: read, then write; any
error is stored as failed and answered 500. The proof that the chaos run can fail.
"""

import json
import uuid

import openai
import redis
from flask import Flask, Response, request

from common.environment import load
from common.settings import ServiceSettings
from tests.fakes import ANALYSIS
from tests.toy.task import TASK


def create_app() -> Flask:
    """The same routes, environment, Redis and model as the real one."""
    settings = load(ServiceSettings)
    store = redis.Redis.from_url(settings.redis_url.get_secret_value())
    model = openai.OpenAI(
        api_key=settings.openai_api_key.get_secret_value(), base_url=settings.openai_base_url
    )
    app = Flask(__name__)

    @app.get("/health")
    def health() -> Response:
        return Response("ok")

    @app.post("/webhook/failure")
    def failure() -> Response:
        return Response("noted")

    @app.post("/webhook")
    def webhook() -> Response:
        key = f"analysis:{{{request.get_json()['requestId']}}}"
        record = json.loads(store.get(key) or "{}")
        if record.get("status") != "pending":
            return Response("handled already")

        def write(**changes: object) -> None:
            record.update(changes)
            store.set(key, json.dumps(record), keepttl=True)

        token = uuid.uuid4().hex
        write(status="processing", claimToken=token, attempt=record["attempt"] + 1)
        try:
            model.responses.create(
                model="plain",
                instructions=TASK.instructions,
                input=json.dumps(record["input"]),
                extra_headers={"X-Client-Request-Id": token},
            )
        except openai.OpenAIError as error:
            write(status="failed", failure=type(error).__name__)
            return Response("failed", status=500)
        write(status="completed", result=ANALYSIS.model_dump(), input=None)
        return Response("done")

    return app
