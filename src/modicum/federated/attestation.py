"""Whose key is it: quotes of SGX and TDX verified up to Intel's root, and a policy that they must satisfy.

Signatures, certificates, revocation lists and TCB levels are checked by the package `dcap-qvl` (extra `attestation`);
which enclaves are let in is said here. Evidence of a simulated enclave is signed by a key that the enclave made itself:
it says nothing about the machine, and is refused unless the policy accepts it by name.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from modicum.core import check, optional
from modicum.federated import ciphers
from modicum.federated.enclave import EnclaveSpec, report_data
from modicum.federated.secagg_messages import RefusedError

TCB_LEVELS = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
"""Intel's levels, from best to worst; a revoked platform is never let in."""

Kind = Literal["simulated", "dcap"]
REPORT_BYTES = 64
_DEBUG_SGX = 0x02
"""Bit 1 of an SGX enclave's attribute flags."""
_DEBUG_TDX = 0xFF
"""The TUD field of a TD's attributes: any bit puts it under debug."""


@dataclass(frozen=True)
class Evidence:
    """What an enclave shows for its key."""

    kind: Kind
    public_key: bytes
    """X25519."""
    quote: bytes
    """A DCAP quote; of a simulated enclave, measurement || report data || Ed25519 key || signature."""
    collateral: str = ""
    """Intel's certificates, revocation lists and TCB levels at the time of the quote, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which enclaves are let in.

    Args:
        measurements: accepted MRENCLAVEs (SGX), or MRTD and RTMR 0 to 3 one after the other (TDX, where MRTD alone
            measures no more than the firmware), in hexadecimal digits; none accepts none.
        signer: MRSIGNER that an SGX enclave must have; None for any, as the measurement says more.
        worst_tcb: the worst of `TCB_LEVELS` that is accepted.
        advisories: Intel's advisories that are accepted; an enclave with any other is refused. None for all.
        max_age_seconds: how old the collateral's TCB information may be.
        accept_simulated: lets in enclaves that protect from nobody who runs the machine.

    Raises:
        ValueError: naming the argument that does not fit.
    """

    measurements: tuple[str, ...] = ()
    signer: str | None = None
    worst_tcb: str = "UpToDate"
    advisories: tuple[str, ...] | None = None
    max_age_seconds: float = 30 * 86400.0
    accept_simulated: bool = False

    def __post_init__(self) -> None:
        check.one_of(TCB_LEVELS, worst_tcb=self.worst_tcb)
        check.positive(max_age_seconds=self.max_age_seconds)
        for name, texts in (("measurements", self.measurements), ("signer", (self.signer or "00",))):
            for text in texts:
                if not text or set(text) - set("0123456789abcdef"):
                    raise ValueError(f"{name} must be written in the digits 0 to 9 and a to f, got {text!r}")


class VerifiedKey(NamedTuple):
    """A key that clients may seal for, and what is known of its enclave."""

    public_key: bytes
    measurement: str
    tcb: str
    advisories: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a quote says once its signatures are verified."""

    measurement: str
    signer: str | None
    data: bytes
    debug: bool
    tcb: str
    advisories: tuple[str, ...] = ()
    issued_seconds: float = field(default=float("inf"))
    """When the TCB information was issued, in seconds since 1970."""


def verify(evidence: Evidence, policy: Policy, spec: EnclaveSpec, nonce: bytes, now_seconds: float) -> VerifiedKey:
    """The enclave's key, if its evidence satisfies the policy.

    Args:
        evidence: what it showed.
        policy: who is let in.
        spec: the session, which the quote must be made for.
        nonce: what the client sent when it asked: at least 16 random bytes, used once, so that no old quote serves.
        now_seconds: the time, in seconds since 1970.

    Raises:
        RefusedError: naming what does not satisfy it.
        ValueError: for a short nonce.
        ImportError: for DCAP quotes without the extra `attestation`.
    """
    if len(nonce) < 16:
        raise ValueError(f"nonce must be at least 16 bytes, got {len(nonce)}")
    if evidence.kind == "simulated":
        if not policy.accept_simulated:
            raise RefusedError(
                "the enclave is simulated: it hides nothing from whoever runs its machine, and the policy does not "
                "say accept_simulated=True"
            )
        report = simulated_report(evidence.quote)
    else:
        report = dcap_report(evidence.quote, evidence.collateral, now_seconds)
        _check(report, policy, now_seconds)
    if report.measurement not in policy.measurements:
        raise RefusedError(f"the enclave's measurement {report.measurement} is not one that the policy accepts")
    if report.data != report_data(spec, evidence.public_key, nonce):
        raise RefusedError("the quote was not made for this key, nonce and session")
    if not ciphers.is_usable(evidence.public_key):
        raise RefusedError("the enclave's key agrees with nobody")
    return VerifiedKey(evidence.public_key, report.measurement, report.tcb, report.advisories)


def _check(report: Report, policy: Policy, now_seconds: float) -> None:
    """What a genuine quote must satisfy beside its measurement."""
    if report.debug:
        raise RefusedError("the enclave runs under debug: its memory can be read")
    if report.tcb not in TCB_LEVELS or TCB_LEVELS.index(report.tcb) > TCB_LEVELS.index(policy.worst_tcb):
        raise RefusedError(f"the platform's level {report.tcb} is worse than the policy's {policy.worst_tcb}")
    others = set(report.advisories) - set(report.advisories if policy.advisories is None else policy.advisories)
    if others:
        raise RefusedError(f"the platform is open to {', '.join(sorted(others))}, which the policy does not accept")
    if policy.signer is not None and report.signer != policy.signer:
        raise RefusedError(f"the enclave's signer {report.signer} is not the policy's {policy.signer}")
    age = now_seconds - report.issued_seconds
    if age > policy.max_age_seconds:
        raise RefusedError(
            f"the TCB information is {age:.0f} s old, older than the policy's {policy.max_age_seconds:.0f} s"
        )


def _dcap(name: str) -> Any:
    return getattr(optional.package("dcap_qvl", "attestation", "dcap-qvl"), name)


def dcap_report(quote: bytes, collateral: str, now_seconds: float) -> Report:
    """A DCAP quote of SGX or TDX, its signatures verified up to Intel's root.

    Raises:
        RefusedError: where they do not verify, or the collateral is not valid at that time.
    """
    collateral_type, verified = _dcap("QuoteCollateralV3"), _dcap("verify")
    try:
        parsed = collateral_type.from_json(collateral)
        found = json.loads(verified(quote, parsed, int(now_seconds)).to_json())
        issued = _issued(collateral)
    except Exception as error:  # the package raises several types, some of its own
        raise RefusedError(f"the quote does not verify: {' '.join(str(error).split())[:200]}") from None
    (kind, body), *_ = found["report"].items()
    read = _sgx if kind == "SgxEnclave" else _tdx
    return Report(**read(body), tcb=found["status"], advisories=tuple(found["advisory_ids"]), issued_seconds=issued)


def _issued(collateral: str) -> float:
    """When the TCB information was issued."""
    from datetime import datetime

    issued = json.loads(json.loads(collateral)["tcb_info"])["issueDate"]
    return datetime.fromisoformat(issued.replace("Z", "+00:00")).timestamp()


def _sgx(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "measurement": body["mr_enclave"],
        "signer": body["mr_signer"],
        "data": bytes.fromhex(body["report_data"]),
        "debug": bool(bytes.fromhex(body["attributes"])[0] & _DEBUG_SGX),
    }


def _tdx(body: Mapping[str, Any]) -> dict[str, Any]:
    body = body.get("base", body)
    return {
        "measurement": "".join(body[name] for name in ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3")),
        "signer": None,
        "data": bytes.fromhex(body["report_data"]),
        "debug": bool(bytes.fromhex(body["td_attributes"])[0] & _DEBUG_TDX),
    }


@functools.cache
def simulated_measurement() -> str:
    """SHA-256 over this package's source: what a simulated enclave says it runs."""
    from pathlib import Path

    files = sorted(Path(__file__).parent.glob("*.py"))
    return ciphers.digest(*(part for path in files for part in (path.name.encode(), path.read_bytes()))).hex()


def simulated_quote(signing_key: bytes, data: bytes) -> bytes:
    """The quote of a simulated enclave.

    Args:
        signing_key: 32-byte Ed25519 key, made by the enclave itself.
        data: 64 bytes to bind.
    """
    body = bytes.fromhex(simulated_measurement()) + data + ciphers.verify_key(signing_key)
    return body + ciphers.sign(signing_key, ciphers.digest(b"simulated quote", body))


def simulated_report(quote: bytes) -> Report:
    """What a simulated quote says.

    Raises:
        RefusedError: where it was altered.
    """
    body, signature = quote[:-64], quote[-64:]
    if len(body) != 64 + REPORT_BYTES:
        raise RefusedError(f"the simulated quote must be {128 + REPORT_BYTES} bytes, got {len(quote)}")
    if not ciphers.is_signed(body[-32:], signature, ciphers.digest(b"simulated quote", body)):
        raise RefusedError("the simulated quote was altered")
    return Report(body[:32].hex(), None, body[32 : 32 + REPORT_BYTES], debug=True, tcb="simulated")
