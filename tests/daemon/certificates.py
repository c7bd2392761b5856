"""Certificates for one test run, made by openssl: a CA, a server and a client it signed, a stranger."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.config import MetricsSettings


@dataclass(frozen=True)
class Certificates:
    """A folder of `NAME.pem` and `NAME.key` for ca, server, client and stranger."""

    folder: Path

    def cert(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def settings(self, host: str = "0.0.0.0") -> MetricsSettings:
        """Metrics on a free port of every address, for clients that the CA signed."""
        return MetricsSettings(
            host=host,
            port=0,
            tls_cert=self.cert("server"),
            tls_key=self.key("server"),
            client_ca=self.cert("ca"),
        )


def make_certificates(folder: Path) -> Certificates:
    """Skips the test where there is no openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl isn't installed")
    made = Certificates(folder)
    _make(made, "ca", "-addext", "basicConstraints=critical,CA:TRUE")
    signed = ("-CA", str(made.cert("ca")), "-CAkey", str(made.key("ca")))
    _make(made, "server", *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    _make(made, "client", *signed)
    _make(made, "stranger")
    return made


def _make(made: Certificates, name: str, *more: str) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(made.key(name)), "-out", str(made.cert(name))]
    done = subprocess.run(
        [*command, "-subj", f"/CN={name}", "-days", "2", *files, *more], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this openssl can't sign a request at once: {done.stderr.decode()[-200:]}")
