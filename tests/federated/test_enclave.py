"""The enclave adds up sealed updates and refuses bad ones, in this process and in one of its own."""

import sys
import tomllib
from dataclasses import replace

import numpy as np
import pytest

from modicum.federated import RefusedError, attestation, ciphers, enclave, gramine, wire
from modicum.federated.enclave_process import ProcessEnclave, serve

KEYS = [ciphers.digest(b"identity", bytes([at])) for at in range(4)]
PUBLIC = tuple(ciphers.verify_key(key) for key in KEYS)
SPEC = enclave.EnclaveSpec(dimension=64, identities=PUBLIC, least=2, clip_norm=20.0)


def updates_of(seed=0, sparsity=0.6):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(4, 64)).astype(np.float32)
    return np.where(rng.random((4, 64)) < sparsity, 0, vectors).astype(np.float32)


def sealed_by(key, client, update, round_id=0, spec=SPEC, identity=None):
    randomness = ciphers.digest(b"randomness", bytes([client, round_id]))
    return enclave.client_seal(spec, round_id, client, identity or KEYS[client], key, update, randomness)


@pytest.fixture
def start():
    return enclave.enclave_init(SPEC, bytes(32))


def test_sum_of_sparse_and_dense_updates(start):
    updates = updates_of()
    updates[2] = updates_of(sparsity=0.0)[2]
    sealed = [sealed_by(start.public_key, at, updates[at]) for at in range(4)]
    overhead = 32 + 64 + 16 + 16 + 1
    for at, each in enumerate(sealed):
        payload = min(4 * 64, wire.sparse_bytes(64, int(np.count_nonzero(updates[at]))))
        assert each.nbytes == payload + overhead
    state, outbox = enclave.enclave_step(SPEC, start, sealed[:3])
    assert outbox == {}
    state, outbox = enclave.enclave_step(SPEC, state, ())
    released = outbox["server"]
    assert (released.round_id, released.survivors, state.round_id, state.total) == (0, (0, 1, 2), 1, None)
    np.testing.assert_array_equal(released.total, updates[:3].astype(np.float64).sum(axis=0))


def test_what_the_enclave_refuses(start):
    updates, key = updates_of(), start.public_key
    first = sealed_by(key, 0, updates[0])
    state, _ = enclave.enclave_step(SPEC, start, [first])
    other = replace(SPEC, model=b"another")

    def refuses(sealed, sentence, spec=SPEC):
        with pytest.raises(RefusedError, match=sentence):
            enclave.enclave_step(spec, state, [sealed])

    refuses(first, "two updates from client 0 in round 0")
    refuses(sealed_by(key, 1, updates[1], round_id=1), "in round 0, got an update of round 1")
    refuses(replace(sealed_by(key, 1, updates[1], round_id=1), round_id=0), "client 1 did not sign for round 0")
    refuses(sealed_by(key, 1, updates[1], spec=other), "client 1 did not sign for round 0")
    refuses(sealed_by(key, 1, updates[1], identity=KEYS[2]), "client 1 did not sign for round 0")
    refuses(replace(first, sender=1), "a key from client 1 that another client uses")
    refuses(replace(first, sender=9), "client 9, who is not of this session")
    good = sealed_by(key, 1, updates[1])
    bad = replace(good, ciphertext=good.ciphertext[:-1] + bytes([good.ciphertext[-1] ^ 1]))
    refuses(bad, "client 1 did not sign for round 0")
    # signed by its owner, and yet not to be opened: sealed for another enclave
    elsewhere = enclave.enclave_init(SPEC, b"\x01" * 32)
    refuses(sealed_by(elsewhere.public_key, 1, updates[1]), "bad update of client 1: the ciphertext was altered")
    with pytest.raises(RefusedError, match="has 1 updates, fewer than the least number 2"):
        enclave.enclave_step(SPEC, state, ())
    assert enclave.enclave_step(SPEC, state, [good])[0].senders == (0, 1)
    assert repr(start.secret) not in repr(start)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(np.nan, "that is not finite"), (np.inf, "that is not finite"), (100.0, "that is larger than 20.0")],
)
def test_non_finite_and_boosted_updates(start, monkeypatch, value, sentence):
    update = updates_of()[0]
    update[3] = value
    with pytest.raises(ValueError, match=r"update must (be finite|have a norm of at most clip_norm 20\.0)"):
        sealed_by(start.public_key, 0, update)
    # a client that does not check, under the session's own tag
    cheat = replace(SPEC)
    assert cheat.tag == SPEC.tag
    object.__setattr__(cheat, "clip_norm", np.inf)
    monkeypatch.setattr(enclave.check, "finite", lambda **_: None)
    sealed = sealed_by(start.public_key, 0, update, spec=cheat)
    with pytest.raises(RefusedError, match=f"update of client 0 {sentence}"):
        enclave.enclave_step(SPEC, start, [sealed])


def test_a_process_of_its_own():
    updates, nonce = updates_of(), b"\x07" * 16
    policy = attestation.Policy(measurements=(attestation.simulated_measurement(),), accept_simulated=True)
    with ProcessEnclave(SPEC) as process:
        assert process.process.pid
        evidence = process.evidence(nonce)
        key = attestation.verify(evidence, policy, SPEC, nonce, 0.0).public_key
        with pytest.raises(RefusedError, match="the enclave is simulated"):
            attestation.verify(evidence, replace(policy, accept_simulated=False), SPEC, nonce, 0.0)
        for at in range(3):
            process.submit(sealed_by(key, at, updates[at]))
        with pytest.raises(RefusedError, match="two updates from client 1 in round 0"):
            process.submit(sealed_by(key, 1, updates[1]))
        released = process.release()
        assert released.survivors == (0, 1, 2)
        np.testing.assert_array_equal(released.total, updates[:3].astype(np.float64).sum(axis=0))
        with pytest.raises(RefusedError, match="has 0 updates"):
            process.release()
    assert process.process.returncode is not None
    with pytest.raises(OSError, match="the enclave's process has ended"):
        ProcessEnclave(SPEC, (sys.executable, "-c", "pass"))


class Pipe:
    """Both ends of a conversation that was recorded."""

    def __init__(self, *messages):
        from io import BytesIO

        from modicum.federated.enclave_process import _write

        self.inbox, self.outbox = BytesIO(), BytesIO()
        for head, body in messages:
            _write(self.inbox, head, body)
        self.inbox.seek(0)

    def answers(self, folder):
        from modicum.federated.enclave_process import _read

        serve(self.inbox, self.outbox, folder)
        self.outbox.seek(0)
        return list(iter(lambda: _read(self.outbox), None))


def test_quotes_come_from_the_device_where_there_is_one(tmp_path):
    from modicum.federated.enclave_process import _spec_text

    start = {"what": "start", **_spec_text(SPEC)}
    asked = [(start, b""), ({"what": "evidence"}, b"\x01" * 16), (start, b"")]
    plain = Pipe(*asked).answers(tmp_path)
    assert plain[1][0]["kind"] == "simulated"
    assert "starts no second one" in plain[2][0]["refused"]
    (tmp_path / "attestation_type").write_text("dcap\n")
    (tmp_path / "quote").write_bytes(b"a quote")
    head, quote = Pipe(*asked).answers(tmp_path)[1]
    assert (head["kind"], quote) == ("dcap", b"a quote")
    written = (tmp_path / "user_report_data").read_bytes()
    assert written == enclave.report_data(SPEC, bytes.fromhex(head["public_key"]), b"\x01" * 16)
    with pytest.raises(ValueError, match="data must be 64 bytes, got 3"):
        gramine.quote(b"abc", tmp_path)
    with pytest.raises(ValueError, match="device must be Gramine's"):
        gramine.quote(bytes(64), tmp_path / "absent")
    assert Pipe(({"what": "release"}, b"")).answers(tmp_path)[0][0]["refused"] == "the enclave has no session yet"


def test_manifest(tmp_path):
    (tmp_path / "lib").mkdir()
    code = tmp_path / "lib" / "code.py"
    code.write_text("pass\n")
    made = tomllib.loads(gramine.manifest([tmp_path / "lib"], enclave_size="2G"))
    assert made["sgx"]["debug"] is False
    assert made["sgx"]["remote_attestation"] == "dcap"
    assert made["sgx"]["file_check_policy"] == "strict"
    assert made["loader"]["argv"][1:] == ["-m", "modicum.federated.enclave_process"]
    assert not any("passthrough" in str(value) for value in made["loader"]["env"].values())
    files = {entry["uri"]: entry["sha256"] for entry in made["sgx"]["trusted_files"] if isinstance(entry, dict)}
    # sha256sum of "pass\n"
    assert files[f"file:{code}"] == "9f56e761d79bfdb34304a012586cb04d16b435ef6130091a97702e559260a2f2"
    with pytest.raises(ValueError, match="trusted must be files and folders that are there"):
        gramine.manifest([tmp_path / "absent"])
    with pytest.raises(ValueError, match="enclave_size must be one of '512M'"):
        gramine.manifest([], enclave_size="3G")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"least": 1}, "least must be a whole number of at least 2"),
        ({"clip_norm": float("inf")}, "clip_norm must be finite"),
        ({"identities": (PUBLIC[0],) * 2}, "identities must be distinct"),
    ],
)
def test_bad_sessions(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SPEC, **more)
