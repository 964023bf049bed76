"""The process QStash calls: a Flask application, served by gunicorn.

gunicorn -c webhook_service/gunicorn.conf.py 'webhook_service:create_app()'
"""

from flask import Flask

from common.environment import Part
from common.logs import start_logging
from common.options import plug_in
from common.qstash import Queue
from common.settings import ServiceSettings
from common.store import Store, open_store
from common.submission import Submissions
from common.task import TASK
from webhook_service.access import limit_rate, trust_proxies
from webhook_service.analyst import Analyst
from webhook_service.api import make_api
from webhook_service.reloading import current_settings
from webhook_service.routes import make_routes
from webhook_service.web import add_security_headers, handle_errors
from webhook_service.worker import AnalystProtocol, Worker

DELIVERY_BYTES = 65_536  # a failure callback holds our answer and the message, twice at most
MAX_BODY_BYTES = max(DELIVERY_BYTES, TASK.max_input_bytes)


def create_app(
    settings: ServiceSettings | None = None,
    chosen: Part | None = None,
    *,
    store: Store | None = None,
    queue: Queue | None = None,
    analyst: AnalystProtocol | None = None,
    open_api: bool = False,
) -> Flask:
    """Wire the service together; whatever is not given is made from the settings.

    `chosen` are the options' settings. `open_api` lets everybody who reaches `/analyze` use it
    while there are no `API_KEYS`: for a loopback address alone.
    Raises: SettingsError.
    """
    if settings is None:
        settings, chosen = current_settings()
    start_logging(settings)
    store = store or open_store(settings)
    queue = queue or Queue(settings)
    analyst = analyst or Analyst(settings)
    options = plug_in("service", settings, chosen, store)
    limits, history = options.limits, options.history

    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of Flask's default provider
    worker = Worker(store, analyst, settings.times, history=history)
    submissions = Submissions(store, queue, settings, limits=limits, history=history)
    api = make_api(settings, submissions, store.events, is_open=open_api)
    limit_rate(app, api, settings, store)
    trust_proxies(app, settings.trusted_proxies)
    for blueprint in (make_routes(settings, store, worker), api, *options.blueprints):
        app.register_blueprint(blueprint)
    handle_errors(app, store.events)
    add_security_headers(app)
    return app
