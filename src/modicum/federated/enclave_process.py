"""An enclave in a process of its own: **simulated** where a plain system starts it, genuine where Gramine does.

The process draws its own keys, speaks over its standard input and output, and runs the steps of `enclave`:

    with ProcessEnclave(spec) as process:
        evidence = process.evidence(nonce)
        key = attestation.verify(evidence, policy, spec, nonce, time.time()).public_key
        process.submit(enclave.client_seal(spec, 0, client, identity, key, update, secrets.token_bytes(32)))
        released = process.release()

What the simulated enclave protects from: mistakes, processes of other users, whoever listens to the network (updates
are sealed on their way), core dumps (on Linux). What it does **not** protect from: root, the operator, the kernel, a
debugger, whoever holds the machine. Nor does its evidence prove which code runs.
"""

import contextlib
import ctypes
import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from modicum.federated import attestation, gramine
from modicum.federated.attestation import Evidence
from modicum.federated.enclave import (
    EnclaveSpec,
    EnclaveState,
    Released,
    SealedUpdate,
    enclave_init,
    enclave_step,
    report_data,
)
from modicum.federated.secagg_messages import RefusedError

_DUMPABLE = 4
"""PR_SET_DUMPABLE of Linux's prctl."""


@runtime_checkable
class Enclave(Protocol):
    """What a server needs of an enclave, wherever it runs."""

    def evidence(self, nonce: bytes) -> Evidence:
        """Evidence for the enclave's key, made for this nonce."""
        ...

    def submit(self, sealed: SealedUpdate) -> None:
        """Adds a client's update; refused as `enclave_step` says."""
        ...

    def release(self) -> Released:
        """Ends the round."""
        ...


class ProcessEnclave:
    """An `Enclave` in a child process.

    Args:
        spec: the session.
        command: what starts the process; by default this Python, which makes it a simulation. Under Gramine:
            `("gramine-sgx", "modicum-enclave")`.

    Raises:
        OSError: where the command cannot be started.
    """

    def __init__(self, spec: EnclaveSpec, command: Sequence[str] = ()) -> None:
        started = tuple(command) or (sys.executable, "-m", "modicum.federated.enclave_process")
        self.process = subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._ask("start", _spec_text(spec))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ProcessEnclave":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; its keys and what it has not released are gone."""
        for stream in (self.process.stdin, self.process.stdout):
            # a process that is gone takes nothing more
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def evidence(self, nonce: bytes) -> Evidence:
        """Evidence for the enclave's key, made for this nonce."""
        head, quote = self._ask("evidence", {}, nonce)
        return Evidence(head["kind"], bytes.fromhex(head["public_key"]), quote)

    def submit(self, sealed: SealedUpdate) -> None:
        """Adds a client's update.

        Raises:
            RefusedError: as `enclave_step`.
        """
        head = {"round_id": sealed.round_id, "sender": sealed.sender, "key": sealed.key.hex()}
        self._ask("submit", head | {"signature": sealed.signature.hex()}, sealed.ciphertext)

    def release(self) -> Released:
        """The sum over the round; the next one begins.

        Raises:
            RefusedError: for fewer updates than `spec.least`.
        """
        head, total = self._ask("release")
        return Released(head["round_id"], tuple(head["survivors"]), np.frombuffer(total, "<f8"))

    def _ask(self, what: str, head: dict | None = None, body: bytes = b"") -> tuple[dict, bytes]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            _write(self.process.stdin, {"what": what, **(head or {})}, body)
            answer = _read(self.process.stdout)
        except OSError:
            answer = None
        if answer is None:
            raise OSError(f"the enclave's process has ended with {self.process.poll()} where {what} was asked of it")
        if "refused" in answer[0]:
            raise RefusedError(answer[0]["refused"])
        if "failed" in answer[0]:
            raise ValueError(answer[0]["failed"])
        return answer


def _spec_text(spec: EnclaveSpec) -> dict:
    """A session as JSON."""
    return {
        "dimension": spec.dimension,
        "identities": [key.hex() for key in spec.identities],
        "least": spec.least,
        "clip_norm": spec.clip_norm,
        "model": spec.model.hex(),
    }


def _spec_of(text: dict) -> EnclaveSpec:
    """Inverse of `_spec_text`."""
    return EnclaveSpec(
        dimension=text["dimension"],
        identities=tuple(bytes.fromhex(key) for key in text["identities"]),
        least=text["least"],
        clip_norm=text["clip_norm"],
        model=bytes.fromhex(text["model"]),
    )


def _write(stream: Any, head: dict, body: bytes) -> None:
    """A message: lengths of head and body, the head as JSON, the body."""
    text = json.dumps(head).encode()
    stream.write(len(text).to_bytes(4, "little") + len(body).to_bytes(8, "little") + text + body)
    stream.flush()


def _read(stream: Any) -> tuple[dict, bytes] | None:
    """The next message; None where the stream has ended."""
    sizes = stream.read(12)
    if len(sizes) < 12:
        return None
    head = stream.read(int.from_bytes(sizes[:4], "little"))
    return json.loads(head), stream.read(int.from_bytes(sizes[4:], "little"))


class _Served:
    """What runs inside: answers one message at a time."""

    def __init__(self, attestation_folder: Path) -> None:
        self.folder = attestation_folder
        self.signing_key = secrets.token_bytes(32)
        self.spec: EnclaveSpec | None = None
        self.state: EnclaveState | None = None

    def answer(self, head: dict, body: bytes) -> tuple[dict, bytes]:
        """The answer to a message."""
        if head["what"] == "start":
            if self.spec is not None:
                raise RefusedError("the enclave has a session and starts no second one")
            self.spec = _spec_of(head)
            self.state = enclave_init(self.spec, secrets.token_bytes(32))
            return {}, b""
        if self.spec is None or self.state is None:
            raise RefusedError("the enclave has no session yet")
        if head["what"] == "evidence":
            return self._evidence(self.spec, self.state, body)
        if head["what"] == "submit":
            key, signature = bytes.fromhex(head["key"]), bytes.fromhex(head["signature"])
            sealed = SealedUpdate(head["round_id"], head["sender"], key, body, signature)
            self.state, _ = enclave_step(self.spec, self.state, [sealed])
            return {}, b""
        self.state, outbox = enclave_step(self.spec, self.state, ())
        released = outbox["server"]
        head = {"round_id": released.round_id, "survivors": released.survivors}
        return head, released.total.astype("<f8").tobytes()

    def _evidence(self, spec: EnclaveSpec, state: EnclaveState, nonce: bytes) -> tuple[dict, bytes]:
        data = report_data(spec, state.public_key, nonce)
        genuine = gramine.is_inside(self.folder)
        quote = gramine.quote(data, self.folder) if genuine else attestation.simulated_quote(self.signing_key, data)
        return {"kind": "dcap" if genuine else "simulated", "public_key": state.public_key.hex()}, quote


def undumpable() -> bool:
    """No core dumps of this process, and no debugger but root's; True where Linux did so."""
    if not sys.platform.startswith("linux"):
        return False
    return ctypes.CDLL(None).prctl(_DUMPABLE, 0, 0, 0, 0) == 0


def serve(inbox: Any, outbox: Any, attestation_folder: Path = gramine.DEVICE) -> None:
    """Answers messages until the stream ends; a refusal is an answer, too."""
    served = _Served(attestation_folder)
    while (message := _read(inbox)) is not None:
        try:
            head, body = served.answer(*message)
        except RefusedError as error:
            head, body = {"refused": str(error)}, b""
        except (ValueError, KeyError, TypeError, OSError) as error:
            head, body = {"failed": f"{type(error).__name__}: {error}"}, b""
        _write(outbox, head, body)


if __name__ == "__main__":
    undumpable()
    serve(sys.stdin.buffer, sys.stdout.buffer)
