"""Genuine public quotes of SGX and TDX verify and their alterations do not; the policy lets in what it says."""

import json
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from modicum.federated import RefusedError, attestation, ciphers, enclave
from modicum.federated.attestation import Evidence, Policy, Report

QUOTES = Path(__file__).parent / "quotes"
NONCE = bytes(16)
KEYS = [ciphers.digest(b"identity", bytes([at])) for at in range(2)]
SPEC = enclave.EnclaveSpec(
    dimension=4, identities=tuple(ciphers.verify_key(key) for key in KEYS), least=2, clip_norm=1.0
)
PUBLIC = ciphers.public_key(bytes(range(32)))
SGX = "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"
SIGNER = "815f42f11cf64430c30bab7816ba596a1da0130c3b028b673133a66cf9a3e0e6"
TDX = "".join(
    (
        "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7",
        "44c0197b39157fdd7a4dcc44767f9d6b0bb3977c7a8e347b8492f827fe9d9e5c48aca29b220b80b6a540cf994b9bc9c0",
        "0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7aea8c323c173019b3093d54e579e9378",
        "d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3ba80b70870d7330733642e01d48c3132",
        "0" * 96,
    )
)
"""Firmware, and what it measured after itself."""
OPEN = Policy(measurements=(SGX, TDX), worst_tcb="ConfigurationAndSWHardeningNeeded")
HOUR = 3600.0


def sample(name):
    collateral = (QUOTES / f"{name}_collateral.json").read_text()
    issued = json.loads(json.loads(collateral)["tcb_info"])["issueDate"]
    quote = (QUOTES / name).read_bytes()
    return quote, collateral, datetime.fromisoformat(issued.replace("Z", "+00:00")).timestamp() + HOUR


@pytest.fixture(scope="module", autouse=True)
def _dcap():
    pytest.importorskip("dcap_qvl")


@pytest.mark.parametrize(
    ("name", "measurement", "tcb"), [("sgx_quote", SGX, OPEN.worst_tcb), ("tdx_quote", TDX, "UpToDate")]
)
def test_genuine_quotes(name, measurement, tcb):
    quote, collateral, now = sample(name)
    started = time.process_time()
    report = attestation.dcap_report(quote, collateral, now)
    assert time.process_time() - started < 0.5
    assert (report.measurement, report.tcb, report.debug, len(report.data)) == (measurement, tcb, False, 64)
    assert now - report.issued_seconds == HOUR
    # all is well but that it was made for somebody else's key
    with pytest.raises(RefusedError, match=r"^the quote was not made for this key, nonce and session$"):
        attestation.verify(Evidence("dcap", PUBLIC, quote, collateral), OPEN, SPEC, NONCE, now)


@pytest.mark.parametrize("name", ["sgx_quote", "tdx_quote"])
def test_altered_quotes(name):
    """One bit in the header, body, report data, both signatures and the certification data; cut short; later."""
    quote, collateral, now = sample(name)
    body = 48 + (384 if name == "sgx_quote" else 584)
    # version, user data, security version of the CPU, measurement, report data, signature, attestation key, QE report
    for at in (0, 30, 48, 112, body - 64, body - 1, body + 4, body + 60, body + 70, body + 140, body + 300):
        bad = bytearray(quote)
        bad[at] ^= 1
        with pytest.raises(RefusedError, match=r"^the quote does not verify: "):
            attestation.dcap_report(bytes(bad), collateral, now)
    for bad in (quote[:-900], quote[:100], b""):
        with pytest.raises(RefusedError, match=r"^the quote does not verify: "):
            attestation.dcap_report(bad, collateral, now)
    with pytest.raises(RefusedError, match=r"the quote does not verify: .*[Ee]xpired"):
        attestation.dcap_report(quote, collateral, now + 10 * 365 * 24 * HOUR)
    other = json.loads(collateral)
    other["tcb_info"] = other["tcb_info"].replace('"tcbDate":"20', '"tcbDate":"21', 1)
    assert other["tcb_info"] != json.loads(collateral)["tcb_info"]
    for changed in (json.dumps(other), "{}", "nonsense"):
        with pytest.raises(RefusedError, match=r"^the quote does not verify: "):
            attestation.dcap_report(quote, changed, now)
    swapped = sample("tdx_quote" if name == "sgx_quote" else "sgx_quote")[1]
    with pytest.raises(RefusedError, match=r"^the quote does not verify: "):
        attestation.dcap_report(quote, swapped, now)


def test_policy():
    quote, collateral, now = sample("sgx_quote")
    evidence = Evidence("dcap", PUBLIC, quote, collateral)
    for policy, sentence in (
        (replace(OPEN, worst_tcb="UpToDate"), "level ConfigurationAndSWHardeningNeeded is worse than .* UpToDate"),
        (replace(OPEN, measurements=(TDX,)), f"measurement {SGX} is not one that the policy accepts"),
        (replace(OPEN, signer="00" * 32), f"signer {SIGNER} is not the policy's"),
        (replace(OPEN, max_age_seconds=60.0), "TCB information is 3600 s old, older than the policy's 60 s"),
        (replace(OPEN, advisories=("INTEL-SA-00289",)), "open to INTEL-SA-00615, which the policy does not accept"),
    ):
        with pytest.raises(RefusedError, match=sentence):
            attestation.verify(evidence, policy, SPEC, NONCE, now)
    with pytest.raises(RefusedError, match="not made for this key"):
        attestation.verify(evidence, replace(OPEN, signer=SIGNER), SPEC, NONCE, now)
    debug = Report(SGX, SIGNER, bytes(64), debug=True, tcb="UpToDate", issued_seconds=now)
    with pytest.raises(RefusedError, match="runs under debug"):
        attestation._check(debug, OPEN, now)
    with pytest.raises(RefusedError, match="level Revoked is worse"):
        attestation._check(replace(debug, debug=False, tcb="Revoked"), OPEN, now)
    attestation._check(replace(debug, debug=False), OPEN, now)


def test_bits_of_debug():
    body = {"mr_enclave": "", "mr_signer": "", "report_data": "", "attributes": "0700"}
    assert attestation._sgx(body)["debug"]
    assert not attestation._sgx({**body, "attributes": "0500"})["debug"]
    domain = {"mr_td": "", "report_data": "", "td_attributes": "0100", **{f"rt_mr{at}": "" for at in range(4)}}
    assert attestation._tdx(domain)["debug"]
    assert not attestation._tdx({"base": {**domain, "td_attributes": "0000"}})["debug"]


def test_simulated_evidence_is_refused_unless_accepted():
    data = enclave.report_data(SPEC, PUBLIC, NONCE)
    quote = attestation.simulated_quote(bytes(32), data)
    evidence = Evidence("simulated", PUBLIC, quote)
    known = (attestation.simulated_measurement(),)
    accepts = Policy(measurements=known, accept_simulated=True)
    key = attestation.verify(evidence, accepts, SPEC, NONCE, 0.0)
    assert (key.public_key, key.tcb) == (PUBLIC, "simulated")
    for bad, policy, spec, nonce, sentence in (
        (evidence, Policy(measurements=known), SPEC, NONCE, "the enclave is simulated: it hides nothing from whoever"),
        (evidence, Policy(accept_simulated=True), SPEC, NONCE, "is not one that the policy accepts"),
        (evidence, accepts, SPEC, b"\x01" * 16, "not made for this key, nonce and session"),
        (evidence, accepts, replace(SPEC, dimension=5), NONCE, "not made for this key, nonce and session"),
        (replace(evidence, public_key=bytes(32)), accepts, SPEC, NONCE, "not made for this key"),
        (replace(evidence, quote=quote[:-1]), accepts, SPEC, NONCE, "must be 192 bytes, got 191"),
        (replace(evidence, quote=b"\x00" + quote[1:]), accepts, SPEC, NONCE, "simulated quote was altered"),
        # a label alone makes no quote genuine
        (replace(evidence, kind="dcap"), accepts, SPEC, NONCE, "the quote does not verify"),
    ):
        with pytest.raises(RefusedError, match=sentence):
            attestation.verify(bad, policy, spec, nonce, 0.0)
    with pytest.raises(ValueError, match="nonce must be at least 16 bytes, got 3"):
        attestation.verify(evidence, accepts, SPEC, b"abc", 0.0)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"worst_tcb": "Good"}, "worst_tcb must be one of 'UpToDate'"),
        ({"measurements": ("XY",)}, "measurements must be written in the digits"),
        ({"max_age_seconds": 0.0}, "max_age_seconds must be above 0"),
    ],
)
def test_bad_policies(more, sentence):
    with pytest.raises(ValueError, match=sentence):
        Policy(**more)
