"""Serves the metrics over HTTP; off loopback only with TLS, and only to clients with a certificate.

Knows sockets, TLS and the scrape's format. Doesn't know what the metrics mean. A handshake has its own
thread and a deadline: a client that says nothing must not keep others from scraping.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from daemon.config import MetricsSettings
from store.errors import ConfigError

CLIENT_SECONDS = 10.0


class _WithoutCreated(Collector):
    """Leaves out the `_created` series, which are half as many again and which nobody asks for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes aren't events."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(CLIENT_SECONDS)
        with self.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away or has no certificate is its own business; stderr is our log."""


def tls_context(settings: MetricsSettings) -> ssl.SSLContext | None:
    """What to speak TLS with, None for plain HTTP. Raises ConfigError for files that can't be used."""
    if not settings.secured:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 or newer
    context.verify_mode = ssl.CERT_REQUIRED
    with _blamed(f"tls_cert {settings.tls_cert}, tls_key {settings.tls_key}"):
        context.load_cert_chain(str(settings.tls_cert), settings.tls_key, password=_refuse)
    with _blamed(f"client_ca {settings.client_ca}"):
        context.load_verify_locations(settings.client_ca)
    return context


@contextmanager
def serving(registry: CollectorRegistry, settings: MetricsSettings) -> Iterator[int]:
    """Serve in a thread of its own until left; yields the port, a free one where port 0 was asked for.

    Raises ConfigError when the address or the certificates can't be used.
    """
    tls = tls_context(settings)
    server = _bind(settings)
    server.tls = tls
    server.set_app(make_wsgi_app(_WithoutCreated(registry)))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _bind(settings: MetricsSettings) -> _Server:
    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET

    try:
        return Server((settings.host, settings.port), _Handler)
    except OSError as error:
        where = f"{settings.host} port {settings.port}"
        hint = "set [metrics] host to an address of this machine and port to a free one"
        raise ConfigError("serve metrics", where, error.strerror or str(error), hint) from error


def _refuse() -> str:
    """Instead of asking for the password of an encrypted key on a terminal that a daemon hasn't got."""
    raise ValueError("the key is encrypted")


@contextmanager
def _blamed(subject: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        hint = "each must be a readable PEM file, and the key unencrypted and the certificate's own"
        raise ConfigError("read TLS files", subject, str(error), hint) from error
