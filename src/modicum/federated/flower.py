"""SEFL over Flower (extra `flower`): the same steps, carried by SuperLink and SuperNodes.

Each client is a SuperNode, and so is the crypto service provider, run by another organization. The ServerApp is the
aggregator, and the SuperLink relays: what passes there are vectors under masks, sealed seeds and the sum of masks.
A node takes the terms of a round from a file of its own (`Terms`), not from the server. Who does not answer in time has
dropped. What a node has answered is remembered within a run: who starts a second run over other nodes may subtract the
two sums (`sefl`), so that a vector that never changes is to be summed once, or under noise.

This module imports Flower when an app is made, and nothing else of the package needs it.
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from modicum.core import optional
from modicum.federated import sefl
from modicum.federated.fixed_point import FixedPointSpec, decode_exact, encode
from modicum.federated.secagg_messages import RefusedError
from modicum.federated.sefl_messages import (
    AGGREGATOR,
    PROVIDER,
    MaskSum,
    OpenRequest,
    SealedSeed,
    SeflSpec,
    Submission,
)

UpdateFn = Callable[[Path, int, int, Float[np.ndarray, " size"]], Float[np.ndarray, " dimension"]]
"""`(the node's folder, client, round, model) -> vector`: what a client has to add in a round."""

_STATE = "modicum"


def flwr_module(module: str) -> Any:
    """A module of Flower, which the extra `flower` brings."""
    return optional.package(f"flwr.{module}", "flower", "flwr")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a node takes from a file that it trusts: `terms.json` in its folder.

    Args:
        dimension: length of the vectors.
        identities: the clients' Ed25519 public keys.
        provider_key: X25519 public key of the provider.
        clip: see `FixedPointSpec`.
        fraction_bits: likewise.
        ring_bits: likewise.
        least: see `SeflSpec`.
        sigma: likewise.
    """

    dimension: int
    identities: tuple[bytes, ...]
    provider_key: bytes
    clip: float
    fraction_bits: int
    ring_bits: int
    least: int
    sigma: float = 0.0

    def write(self, folder: Path) -> None:
        """Puts them into a folder."""
        text = {**vars(self), "identities": [key.hex() for key in self.identities]}
        text["provider_key"] = self.provider_key.hex()
        (folder / "terms.json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> "Terms":
        """Those of a folder."""
        text: dict[str, Any] = json.loads((folder / "terms.json").read_text(encoding="utf-8"))
        text["identities"] = tuple(bytes.fromhex(key) for key in text["identities"])
        text["provider_key"] = bytes.fromhex(text["provider_key"])
        return Terms(**text)

    def round(self, run_id: int, round_id: int) -> SeflSpec:
        """A round of a run."""
        fixed = FixedPointSpec(
            clients=len(self.identities), clip=self.clip, fraction_bits=self.fraction_bits, ring_bits=self.ring_bits
        )
        return SeflSpec(
            round_id=round_id,
            dimension=self.dimension,
            identities=self.identities,
            provider_key=self.provider_key,
            fixed_point=fixed,
            least=self.least,
            sigma=self.sigma,
            model=(run_id % 2**64).to_bytes(8, "little"),
        )


def submission_record(message: Submission) -> dict[str, Any]:
    """A submission as what a `ConfigRecord` holds."""
    seed = {"key": message.seed.key, "ciphertext": message.seed.ciphertext, "signature": message.seed.signature}
    return {"round": message.round_id, "sender": message.sender, "masked": message.masked, **seed}


def read_submission(record: Mapping[str, Any]) -> Submission:
    """Inverse of `submission_record`."""
    seed = SealedSeed(record["sender"], record["key"], record["ciphertext"], record["signature"])
    return Submission(record["round"], record["sender"], record["masked"], seed)


def request_record(message: OpenRequest) -> dict[str, Any]:
    """A request as what a `ConfigRecord` holds."""
    seeds = list(message.seeds.values())
    columns = {name: [getattr(seed, name) for seed in seeds] for name in ("sender", "key", "ciphertext", "signature")}
    return {"round": message.round_id, **columns}


def read_request(record: Mapping[str, Any]) -> OpenRequest:
    """Inverse of `request_record`."""
    columns = zip(record["sender"], record["key"], record["ciphertext"], record["signature"], strict=True)
    return OpenRequest(record["round"], {row[0]: SealedSeed(*row) for row in columns})


def client_app(update_fn: UpdateFn, root: Path | None = None) -> Any:
    """A Flower `ClientApp` for clients and provider alike; `node_config` says which a node is.

    `folder` is the node's own: `terms.json`, and `identity.key` (a client) or `provider.key`, 32 bytes each;
    `client` is the client's number.

    Args:
        update_fn: what a client adds.
        root: for simulation, where nodes have no configuration of their own: holds one such folder per node,
            `client-0` and so on and `provider`, the node of the last number.
    """
    app, flwr_app = flwr_module("clientapp").ClientApp(), flwr_module("app")

    def answer(record: Mapping[str, Any], message: Any) -> Any:
        content = flwr_app.RecordDict({_STATE: flwr_app.ConfigRecord(dict(record))})
        return flwr_app.Message(content, reply_to=message)

    @app.train()
    def submit(message: Any, context: Any) -> Any:
        folder, client = _node(context, root)
        if client is None:
            return answer({"role": PROVIDER}, message)
        asked = message.content[_STATE]
        _once(context, flwr_app, asked["round"], f"client {client}")
        terms = Terms.read(folder)
        spec = terms.round(context.run_id, asked["round"])
        model = np.frombuffer(asked["model"], "<f4")
        encoded = encode(spec.fixed_point, jnp.asarray(update_fn(folder, client, asked["round"], model)))
        identity = (folder / "identity.key").read_bytes()
        state = sefl.client_init(spec, client, identity, np.asarray(encoded.ring))
        _, outbox = sefl.client_step(spec, state, (), secrets.token_bytes(32))
        sent = outbox[AGGREGATOR]
        assert isinstance(sent, Submission)
        return answer({"role": "client", "clipped": int(encoded.clipped), **submission_record(sent)}, message)

    @app.query()
    def open_masks(message: Any, context: Any) -> Any:
        folder, client = _node(context, root)
        if client is not None:
            raise RefusedError(f"client {client} is not the provider and opens nothing")
        request = read_request(message.content[_STATE])
        spec = Terms.read(folder).round(context.run_id, request.round_id)
        opened = int(context.state[_STATE]["round"]) if _STATE in context.state else -1
        state = sefl.ProviderState((folder / "provider.key").read_bytes(), opened)
        state, outbox = sefl.provider_step(spec, state, [request], secrets.token_bytes(32))
        context.state[_STATE] = flwr_app.ConfigRecord({"round": state.opened})
        masks = outbox[AGGREGATOR]
        assert isinstance(masks, MaskSum)
        return answer({"round": masks.round_id, "survivors": list(masks.survivors), "total": masks.total}, message)

    return app


def _node(context: Any, root: Path | None) -> tuple[Path, int | None]:
    """The node's folder and, of a client, its number."""
    config = context.node_config
    if root is None:
        return Path(config["folder"]), None if config.get("role") == PROVIDER else int(config["client"])
    number = int(config["partition-id"])
    if number == int(config["num-partitions"]) - 1:
        return root / PROVIDER, None
    return root / f"client-{number}", number


def _once(context: Any, flwr_app: Any, round_id: int, who: str) -> None:
    """A node sends one vector per round: two under other seeds, the sums of which it is in would tell apart."""
    last = int(context.state[_STATE]["round"]) if _STATE in context.state else -1
    if round_id <= last:
        raise RefusedError(f"{who} has answered in round {last} and does not in round {round_id}")
    context.state[_STATE] = flwr_app.ConfigRecord({"round": round_id})


class FlowerRound(NamedTuple):
    """What a round gave."""

    total: Float[np.ndarray, " dimension"]
    """Sum of the survivors' vectors, float64."""
    survivors: tuple[int, ...]
    refused: tuple[str, ...]
    """Why messages were left out."""
    upload_bytes: int


def secure_sum(
    grid: Any, run_id: int, terms: Terms, round_id: int, model: Float[np.ndarray, " size"], timeout_seconds: float
) -> FlowerRound:
    """One round, driven by the ServerApp: all nodes are asked, whoever answers in time is in the sum.

    Args:
        grid: Flower's.
        run_id: of the run.
        terms: of the run.
        round_id: number of the round.
        model: what clients start from.
        timeout_seconds: how long to wait for clients, and then for the provider.

    Raises:
        RefusedError: where fewer clients than `terms.least` answer, or the provider does not.
    """
    flwr_app, spec = flwr_module("app"), terms.round(run_id, round_id)

    def send(record: Mapping[str, Any], nodes: Sequence[int], kind: str) -> list[Any]:
        content = flwr_app.RecordDict({_STATE: flwr_app.ConfigRecord(dict(record))})
        messages = [flwr_app.Message(content, node, kind, group_id=str(round_id)) for node in nodes]
        return list(grid.send_and_receive(messages, timeout=timeout_seconds))

    asked = {"round": round_id, "model": model.astype("<f4").tobytes()}
    state, provider, refused, sent = sefl.AggregatorState(), None, [], 0
    for reply in send(asked, list(grid.get_node_ids()), flwr_app.MessageType.TRAIN):
        if reply.has_error():
            refused.append(f"node {reply.metadata.src_node_id}: {reply.error.reason}")
            continue
        record = reply.content[_STATE]
        if record["role"] == PROVIDER:
            provider = reply.metadata.src_node_id
            continue
        try:
            submission = read_submission(record)
            state, _ = sefl.aggregator_step(spec, state, [submission])
            sent += submission.nbytes
        except (RefusedError, KeyError) as error:
            refused.append(str(error))
    if provider is None:
        raise RefusedError(f"the provider has not answered in round {round_id}")
    state, outbox = sefl.aggregator_step(spec, state, ())
    request = outbox[PROVIDER]
    assert isinstance(request, OpenRequest)
    replies = send(request_record(request), [provider], flwr_app.MessageType.QUERY)
    if not replies or replies[0].has_error():
        reason = replies[0].error.reason if replies else "no answer in time"
        raise RefusedError(f"the provider has opened nothing in round {round_id}: {reason}")
    record = replies[0].content[_STATE]
    masks = MaskSum(record["round"], tuple(record["survivors"]), record["total"])
    state, _ = sefl.aggregator_step(spec, state, [masks], secrets.token_bytes(32))
    assert state.total is not None
    return FlowerRound(decode_exact(spec.fixed_point, state.total), state.survivors, tuple(refused), sent)
