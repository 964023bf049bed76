"""The real nginx with the configuration that is deployed, and a DNS server for its upstreams."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from tests.conftest import leave_out
from tests.name_server import NameServer, name_server
from tests.processes import ROOT, free_port, wait_for

CONF = Path("deploy/nginx.conf")
NGINX_CONF = (ROOT / CONF).read_text()


class Proxy(NamedTuple):
    """Where people come in, where QStash does, and what the upstreams' names lead to."""

    url: str
    webhook_url: str
    names: NameServer


@contextmanager
def nginx(
    directory: Path, service_url: str, page_url: str, configured: str = NGINX_CONF
) -> Iterator[Proxy]:
    """Run it as configured, with the two at these addresses as `service` and `page`."""
    path = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        leave_out("the proxy", because="there is no nginx", remedy="apt install nginx-light")
    service, page = urlsplit(service_url), urlsplit(page_url)
    people, qstash = free_port(), free_port()
    with name_server(service=str(service.hostname), page=str(page.hostname)) as names:
        conf = (
            configured.replace("service:3001", f"service:{service.port}")
            .replace("page:8501", f"page:{page.port}")
            .replace("resolver 127.0.0.11 valid=5s", f"resolver 127.0.0.1:{names.port} valid=1s")
            .replace("listen 8080", f"listen 127.0.0.1:{people}")
            .replace("listen 8081", f"listen 127.0.0.1:{qstash}")
            .replace("127.0.0.1:8080", f"127.0.0.1:{people}")
            .replace("/tmp/", f"{directory}/")
        )
        (directory / "nginx.conf").write_text(conf)
        process = subprocess.Popen(
            [path, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-g", "daemon off;"]
        )
        proxy = Proxy(f"http://127.0.0.1:{people}", f"http://127.0.0.1:{qstash}", names)
        try:
            wait_for(lambda: httpx.get(proxy.webhook_url).status_code == 404)
            yield proxy
        finally:
            process.terminate()
            process.wait(timeout=10)
