"""SEFL over SuperLink and SuperNodes with TLS on loopback: a node killed, another too slow, the sum exact."""

import importlib.util
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from modicum.federated import SeflSpec, ciphers, sefl
from modicum.federated.flower import (
    Terms,
    flwr_module,
    read_request,
    read_submission,
    request_record,
    submission_record,
)
from modicum.systems import federation_flower
from modicum.systems.federation_deploy import Deployment, certificates

TERMS = {"dimension": 500, "clip": 8.0, "fraction_bits": 20, "ring_bits": 32, "least": 2}
HAS_FLOWER = importlib.util.find_spec("flwr") is not None


def test_messages_come_back_from_records(tmp_path):
    terms = federation_flower.prepare(tmp_path, TERMS, 3)
    assert Terms.read(tmp_path / "client-1") == terms
    spec = terms.round(2**63 + 5, 4)
    assert isinstance(spec, SeflSpec)
    sent = []
    for at in range(3):
        path = tmp_path / f"client-{at}" / "identity.key"
        assert path.stat().st_mode & 0o77 == 0
        state = sefl.client_init(spec, at, path.read_bytes(), np.full(500, at, np.uint32))
        sent.append(sefl.client_step(spec, state, (), bytes(32))[1]["aggregator"])
        assert read_submission(submission_record(sent[-1])) == sent[-1]
    state, _ = sefl.aggregator_step(spec, sefl.AggregatorState(), sent)
    request = sefl.aggregator_step(spec, state, ())[1]["provider"]
    assert read_request(request_record(request)) == request
    secret = (tmp_path / "provider" / "provider.key").read_bytes()
    assert ciphers.public_key(secret) == terms.provider_key
    # the folder of the server holds no secret
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".key"]


def test_certificates(tmp_path):
    import socket
    import ssl
    import threading

    authority, certificate, key = certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with context.wrap_socket(server.accept()[0], server_side=True) as secure:
                secure.sendall(b"hello")

        thread = threading.Thread(target=answer)
        thread.start()
        trusting = ssl.create_default_context(cafile=str(authority))
        raw = socket.create_connection(server.getsockname())
        with trusting.wrap_socket(raw, server_hostname="127.0.0.1") as secure:
            assert secure.recv(5) == b"hello"
        thread.join()


@pytest.mark.skipif(HAS_FLOWER, reason="flwr is installed")
def test_flower_is_optional(tmp_path):
    with pytest.raises(ImportError, match=r"pip install 'modicum\[flower\]'"):
        flwr_module("app")
    with pytest.raises(ValueError, match="flwr must be installed for"):
        Deployment(tmp_path, 2)


def wait_for(path, text, seconds=90):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if path.exists() and text in path.read_text(errors="replace"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{text!r} does not appear in {path}")


def alive(session):
    """Processes of a session that are left."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry))
    return found


@pytest.mark.skipif(not HAS_FLOWER, reason="needs flwr: pip install 'modicum[flower]'")
@pytest.mark.slow
def test_one_node_killed_and_one_too_slow(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(4, 500)).astype(np.float32)
    federation_flower.prepare(tmp_path, TERMS, 4)
    for at in range(4):
        np.save(tmp_path / f"client-{at}" / "vector.npy", vectors[at])
    for at in (2, 3):
        (tmp_path / f"client-{at}" / "delay-0").write_text("300")
    with Deployment(tmp_path, 4) as deployment:
        sessions = [process.pid for process in deployment.processes.values()]
        deployment.run({"folder": str(tmp_path), "rounds": 1, "timeout": float(os.environ.get("FLOWER_TIMEOUT", "30"))})
        # the third has got its message and is at work
        wait_for(tmp_path / "logs" / "client-2.log", "Received")
        deployment.end("client-2")
        (line,) = deployment.await_rounds(1, 100)
    assert line["survivors"] == [0, 1]
    exact = np.rint(vectors[:2].astype(np.float64) * 2**20).sum(axis=0) / 2**20
    np.testing.assert_array_equal(np.load(tmp_path / "sum-0.npy"), exact)
    assert not [pid for session in sessions for pid in alive(session)]
    # what was relayed went over TLS, and the server's folder has no seed
    config = (tmp_path / "flwr" / "config.toml").read_text()
    assert "root-certificates" in config
    assert "insecure" not in config
    assert json.dumps(line)
