"""How a simulated round adds up its clients' updates: plainly, under SEFL, or in an enclave; all bytes are counted.

All parties run in one process, their secrets are derived from the run's seed: this shows what the protocols compute
and cost, and protects nobody. `scripts/federate.py --engine flower` puts the parties into processes of their own.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from modicum.federated import FixedPointSpec, SeflSpec, ciphers, decode_exact, enclave, encode, sefl
from modicum.systems.federation_config import FederatedConfig


class Summed(NamedTuple):
    """What a round's aggregation gave."""

    mean: Float[np.ndarray, " dimension"]
    """Mean of the survivors' updates, float32."""
    upload_bytes: int
    """What all clients sent."""
    cpu_seconds: float
    """Of all parties: sealing or masking, opening, adding."""
    clipped: int
    """Entries that SEFL's fixed point could not hold."""


class Secrets(NamedTuple):
    """Keys of a simulated run."""

    identities: tuple[bytes, ...]
    public: tuple[bytes, ...]
    provider: bytes
    enclave: bytes


def secrets_of(seed: int, clients: int) -> Secrets:
    """Derived from the seed: for simulation alone."""
    root = ciphers.digest(b"modicum simulation", seed.to_bytes(8, "little"))
    identities = tuple(ciphers.digest(root, b"identity", at.to_bytes(4, "little")) for at in range(clients))
    public = tuple(ciphers.verify_key(key) for key in identities)
    return Secrets(identities, public, ciphers.digest(root, b"provider"), ciphers.digest(root, b"enclave"))


def _randomness(secrets: Secrets, round_id: int, party: int) -> bytes:
    numbers = (round_id.to_bytes(8, "little"), party.to_bytes(4, "little"))
    return ciphers.digest(secrets.provider, b"randomness", *numbers)


@dataclass(frozen=True)
class Paths:
    """Adds up updates as a config says.

    Attributes:
        config: the run.
        secrets: its keys.
        dimension: length of an update.
    """

    config: FederatedConfig
    secrets: Secrets
    dimension: int

    def add_up(
        self,
        round_id: int,
        updates: Float[np.ndarray, " clients dimension"],
        present: Bool[np.ndarray, " clients"],
        support: Bool[np.ndarray, " dimension"] | None = None,
    ) -> Summed:
        """The mean of the updates of those that are present.

        Args:
            round_id: number of the round.
            updates: one row per client.
            present: False where a client dropped.
            support: SEFL: the entries that all send; None for all of them.

        Raises:
            RefusedError: where fewer than `config.least` are present.
        """
        started = time.process_time()
        if self.config.path == "plain":
            total, sent, clipped = updates[present].astype(np.float64).sum(axis=0), 4 * int(present.sum()), 0
            sent *= self.dimension
        elif self.config.path == "sefl":
            total, sent, clipped = self._sefl(round_id, updates, present, support)
        else:
            total, sent, clipped = self._enclave(round_id, updates, np.flatnonzero(present).tolist())
        mean = (total / int(present.sum())).astype(np.float32)
        return Summed(mean, sent, time.process_time() - started, clipped)

    def sefl_spec(self, round_id: int, dimension: int) -> SeflSpec:
        """A round of SEFL."""
        config = self.config
        fixed = FixedPointSpec(
            clients=config.clients, clip=config.clip, fraction_bits=config.fraction_bits, ring_bits=config.ring_bits
        )
        return SeflSpec(
            round_id=round_id,
            dimension=dimension,
            identities=self.secrets.public,
            provider_key=ciphers.public_key(self.secrets.provider),
            fixed_point=fixed,
            least=config.least,
            sigma=config.sigma,
            model=config.data.name.encode(),
        )

    def _sefl(
        self, round_id: int, updates: np.ndarray, present: np.ndarray, support: np.ndarray | None
    ) -> tuple[np.ndarray, int, int]:
        chosen = updates if support is None else updates[:, support]
        spec = self.sefl_spec(round_id, chosen.shape[1])
        encoded = encode(spec.fixed_point, jnp.asarray(chosen))
        provider = sefl.ProviderState(self.secrets.provider, round_id - 1)
        randomness = [_randomness(self.secrets, round_id, party) for party in range(spec.clients + 2)]
        _, result = sefl.run_round(
            spec, provider, np.asarray(encoded.ring), self.secrets.identities, randomness, ~present
        )
        total = decode_exact(spec.fixed_point, result.total)
        if support is not None:
            whole = np.zeros(self.dimension)
            whole[support] = total
            total = whole
        return total, result.upload_bytes, int(encoded.clipped)

    def enclave_spec(self) -> enclave.EnclaveSpec:
        """The session of all rounds."""
        return enclave.EnclaveSpec(
            dimension=self.dimension,
            identities=self.secrets.public,
            least=self.config.least,
            clip_norm=self.config.clip_norm,
            model=self.config.data.name.encode(),
        )

    def _enclave(self, round_id: int, updates: np.ndarray, present: Sequence[int]) -> tuple[np.ndarray, int, int]:
        spec = self.enclave_spec()
        start = enclave.enclave_init(spec, self.secrets.enclave)
        state, sent = enclave.EnclaveState(start.secret, round_id), 0
        for at in present:
            identity, randomness = self.secrets.identities[at], _randomness(self.secrets, round_id, at)
            sealed = enclave.client_seal(
                spec, round_id, at, identity, state.public_key, np.asarray(updates[at]), randomness
            )
            sent += sealed.nbytes
            state, _ = enclave.enclave_step(spec, state, [sealed])
        _, outbox = enclave.enclave_step(spec, state, ())
        return outbox["server"].total, sent, 0
