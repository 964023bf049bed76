"""The real nginx with the configuration that is deployed, and a DNS server for its upstreams."""

import os
import re
import shutil
import ssl
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
HTTP2_IS_A_DIRECTIVE = (1, 25, 1)  # before, it is a word of `listen`


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
    path = find_nginx()
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
            .replace("/etc/nginx/tls", f"{directory}/tls")
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


def find_nginx() -> str:
    path = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        leave_out("the proxy", because="there is no nginx", remedy="apt install nginx-light")
    return path


class Tls(NamedTuple):
    """Where people and QStash come in by TLS, and whom a client has to trust."""

    url: str
    webhook_url: str
    trust: ssl.SSLContext


@contextmanager
def nginx_with_tls(directory: Path, service_url: str, page_url: str) -> Iterator[tuple[Proxy, Tls]]:
    """Run it with what compose.tls.yaml adds, and a certificate of this machine."""
    certificates, added = directory / "certificates", directory / "tls"
    make_certificate(certificates)
    added.mkdir()
    people, qstash = free_port(), free_port()
    for path in (ROOT / "deploy" / "tls").iterdir():
        text = path.read_text().replace("/etc/nginx/certificates", str(certificates))
        if version_of(find_nginx()) < HTTP2_IS_A_DIRECTIVE and "http2 on;\n" in text:
            text = text.replace("http2 on;\n", "").replace(" ssl;", " ssl http2;")
        text = text.replace("listen 8443", f"listen 127.0.0.1:{people}")
        text = text.replace("listen 8444", f"listen 127.0.0.1:{qstash}")
        (added / path.name).write_text(text)
    trust = ssl.create_default_context(cafile=str(certificates / "fullchain.pem"))
    with nginx(directory, service_url, page_url) as proxy:
        yield proxy, Tls(f"https://127.0.0.1:{people}", f"https://127.0.0.1:{qstash}", trust)


def version_of(path: str) -> tuple[int, ...]:
    told = subprocess.run([path, "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(map(int, re.findall(r"\d+", told)[:3]))


def make_certificate(directory: Path) -> None:
    """Write the two files that the proxy expects, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        leave_out("TLS", because="there is no openssl", remedy="apt install openssl")
    directory.mkdir()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", "privkey.pem", "-out", "fullchain.pem"),
        ],
        cwd=directory,
        capture_output=True,
        check=True,
    )
