"""SuperLink, SuperNodes and a run of them on this machine: TLS with a fresh authority, each process ended by its id."""

import contextlib
import datetime
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

HOST = "127.0.0.1"


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority and a certificate of `127.0.0.1` that it signed, good for a day.

    Args:
        folder: where they lie.

    Returns:
        Files of authority, certificate and key.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def made(subject: str, key: Any, is_authority: bool) -> x509.CertificateBuilder:
        names = ("digital_signature", "key_cert_sign", "crl_sign")
        other = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        uses = {name: is_authority or name == names[0] for name in names} | dict.fromkeys(other, False)
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("modicum authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**uses, encipher_only=False, decipher_only=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
        )

    root = made("modicum authority", authority, True).sign(authority, hashes.SHA256())
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
    leaf = made(HOST, server, False)
    leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(authority, hashes.SHA256())
    paths = folder / "authority.pem", folder / "server.pem", folder / "server.key"
    for path, certificate in zip(paths, (root, leaf), strict=False):
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[2].touch(0o600)
    paths[2].write_bytes(
        server.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return paths


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


class Deployment:
    """SuperLink, one SuperNode per client and one for the provider, over TLS on loopback.

    Args:
        folder: a prepared run, see `federation_flower.prepare`.
        clients: how many.

    Raises:
        ValueError: where Flower is not installed beside this Python.
    """

    def __init__(self, folder: Path, clients: int) -> None:
        self.folder, self.programs = folder.resolve(), Path(sys.executable).parent
        if not (self.programs / "flower-superlink").is_file():
            raise ValueError(f"flwr must be installed for {sys.executable}: pip install 'modicum[flower]'")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.authority, self.certificate, self.key = certificates(self.folder / "tls")
        self.port, *self.node_ports = free_ports(clients + 2)
        self.clients = clients

    def __enter__(self) -> "Deployment":
        home = self.folder / "flwr"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = "{HOST}:{self.port}"\n'
            f'root-certificates = "{self.authority}"\n'
        )
        (self.folder / "logs").mkdir(exist_ok=True)
        tls = ("--ssl-ca-certfile", self.authority, "--ssl-certfile", self.certificate, "--ssl-keyfile", self.key)
        address = ("--host", HOST, "--port", str(self.port))
        self.start("superlink", "flower-superlink", *tls, *address, "--disable-runtime-dependency-installation")
        self._await_port()
        for at in range(self.clients):
            self._node(f"client-{at}", f'folder="{self.folder}/client-{at}" client={at}', self.node_ports[at])
        self._node("provider", f'folder="{self.folder}/provider" role="provider"', self.node_ports[-1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for name in list(self.processes):
            self.end(name)

    @property
    def environment(self) -> Mapping[str, str]:
        """Of all processes: Flower's files in the run's folder, nothing told to its makers."""
        cache = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled")}
        flower = {"FLWR_HOME": str(self.folder / "flwr"), "FLWR_TELEMETRY_ENABLED": "0"}
        search = {"PATH": f"{self.programs}{os.pathsep}{os.environ.get('PATH', '')}"}
        return {**os.environ, **flower, **cache, **search}

    def start(self, name: str, program: str, *arguments: str | Path) -> None:
        """A process with a session of its own, so that it ends together with what it starts."""
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [str(self.programs / program), *map(str, arguments)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=dict(self.environment),
                cwd=self.folder,
                start_new_session=True,
            )

    def _node(self, name: str, config: str, port: int) -> None:
        tls = ("--ssl-ca-certfile", self.authority, "--ssl-certfile", self.certificate, "--ssl-keyfile", self.key)
        link = ("--superlink", f"{HOST}:{self.port}", "--root-certificates", self.authority)
        self.start(name, "flower-supernode", *link, *tls, "--port", str(port), "--node-config", config)

    def _await_port(self, seconds: float = 60.0) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1):
                return
            if self.processes["superlink"].poll() is not None:
                break
            time.sleep(0.2)
        log = (self.folder / "logs" / "superlink.log").read_text(errors="replace").splitlines()
        raise OSError(f"the SuperLink does not answer on {HOST}:{self.port}: {' '.join(log[-3:])[:300]}")

    def end(self, name: str) -> None:
        """Ends a process and what it started, by its id."""
        process = self.processes.pop(name)
        for kind, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        # the session's id stays taken as long as one of its processes is there
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def run(self, settings: Mapping[str, Any]) -> None:
        """Hands the app in; returns at once.

        Args:
            settings: the run's configuration.
        """
        written = (
            f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}" for key, value in settings.items()
        )
        app = str(self.folder / "app")
        command = [str(self.programs / "flwr"), "run", app, "local", "--run-config", " ".join(written)]
        made = subprocess.run(command, env=dict(self.environment), capture_output=True, text=True, timeout=120)
        (self.folder / "logs" / "run.log").write_text(made.stdout + made.stderr)
        if made.returncode:
            said = " ".join((made.stdout + made.stderr).split())
            raise OSError(f"flwr run has ended with {made.returncode}: {said[-300:]}")

    def await_rounds(self, rounds: int, seconds: float) -> list[dict[str, Any]]:
        """The lines of so many rounds, once they are there.

        Raises:
            OSError: where they are not in time; the sentence has the last words of the SuperLink.
        """
        from modicum.train import metrics

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            lines = metrics.read(self.folder / "metrics.jsonl")
            if len(lines) >= rounds:
                return lines
            time.sleep(0.3)
        log = (self.folder / "logs" / "superlink.log").read_text(errors="replace").split()
        raise OSError(f"round {len(metrics.read(self.folder / 'metrics.jsonl'))} is not over: {' '.join(log)[-300:]}")
