"""The metrics' endpoint: plain on loopback, for known clients only everywhere else."""

import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from daemon.config import MetricsSettings, parse
from daemon.exposition import serving, tls_context
from daemon.metrics import Metrics
from store.errors import ConfigError
from tests.daemon.certificates import Certificates, make_certificates

TLS = 'tls_cert = "a"\ntls_key = "b"\nclient_ca = "c"\n'


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def port(certificates: Certificates) -> Iterator[int]:
    """Of a server on every address of this machine."""
    with serving(Metrics(CollectorRegistry()).registry, certificates.settings()) as port:
        yield port


def scrape(certificates: Certificates, port: int, client: str = "") -> str:
    context = ssl.create_default_context(cafile=certificates.cert("ca"))
    if client:
        context.load_cert_chain(certificates.cert(client), certificates.key(client))
    url = f"https://127.0.0.1:{port}/metrics"
    with urllib.request.urlopen(url, timeout=10, context=context) as answer:
        return str(answer.read().decode())


def test_a_client_with_a_certificate_is_served(certificates: Certificates, port: int) -> None:
    """Over TLS, with the certificate that the operator's CA signed."""
    assert "palimpsest_queue_depth 0.0" in scrape(certificates, port, "client")


@pytest.mark.parametrize("client", ["", "stranger"])
def test_a_client_without_a_known_certificate_is_refused(
    certificates: Certificates, port: int, client: str
) -> None:
    """Nobody, and somebody whom another CA vouches for, get nothing."""
    with pytest.raises(OSError, match=r"(?i)certificate|alert|reset|closed|EOF|remote end"):
        scrape(certificates, port, client)


def test_plain_http_is_refused(certificates: Certificates, port: int) -> None:
    """There is no way around TLS on the same port."""
    with pytest.raises(OSError, match=r"(?i)reset|closed|remote end"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


def test_a_client_that_says_nothing_keeps_nobody_from_scraping(certificates: Certificates, port: int) -> None:
    """A handshake that never comes waits in a thread of its own."""
    with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
        assert "palimpsest_build_info" in scrape(certificates, port, "client")


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ('host = "0.0.0.0"', ["host: '0.0.0.0' is off loopback, which needs tls_cert, tls_key, client_ca"]),
        (
            'host = "metrics.example"',
            ["host: 'metrics.example' is off loopback, which needs tls_cert, tls_key, client_ca"],
        ),
        (
            'host = "::"\ntls_cert = "a"\ntls_key = "b"',
            ["client_ca: missing; tls_cert, tls_key and client_ca go together"],
        ),
        ('client_ca = "c"', ["tls_cert, tls_key: missing; tls_cert, tls_key and client_ca go together"]),
        ('host = "0.0.0.0"\n' + TLS, []),
        (TLS, []),
        ('host = "127.3.2.1"', []),
        ('host = "::1"', []),
        ('host = "localhost"', []),
    ],
)
def test_off_loopback_needs_all_of_tls(text: str, faults: list[str]) -> None:
    """Any address is allowed with certificates, only loopback without; half of them is a mistake."""
    found: list[str] = []
    try:
        parse(f"[metrics]\n{text}", "test.toml")
    except ConfigError as error:
        found = error.cause.splitlines()
    assert found == [f"metrics.{fault}" for fault in faults]


def test_files_that_cannot_be_used_are_named(certificates: Certificates, tmp_path: Path) -> None:
    """A missing file, one that is no certificate and a key of another certificate each say which it is."""
    (tmp_path / "bad.pem").write_text("nothing")
    good = certificates.settings()
    for settings, named in (
        (replace(good, tls_cert=tmp_path / "none.pem"), "none.pem"),
        (replace(good, client_ca=tmp_path / "bad.pem"), "client_ca"),
        (replace(good, tls_key=certificates.key("client")), "tls_key"),
    ):
        with pytest.raises(ConfigError) as caught:
            tls_context(settings)
        assert named in caught.value.subject
        assert "PEM" in caught.value.hint


def test_an_address_that_is_taken_is_a_configuration_error() -> None:
    """It names the address instead of ending in a traceback."""
    registry = CollectorRegistry()
    with (
        serving(registry, MetricsSettings(port=0)) as port,
        pytest.raises(ConfigError) as caught,
        serving(registry, MetricsSettings(port=port)),
    ):
        pass
    assert caught.value.subject == f"127.0.0.1 port {port}"


def test_the_encrypted_key_is_refused_and_not_asked_for(certificates: Certificates, tmp_path: Path) -> None:
    """A daemon without a terminal must not wait for a password."""
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", str(certificates.key("server")), "-out", str(locked)]
    subprocess.run([*command, "-aes256", "-passout", "pass:x"], check=True, capture_output=True)
    with pytest.raises(ConfigError, match="encrypted"):
        tls_context(replace(certificates.settings(), tls_key=locked))
