"""Secure sums for federated learning: the maths, and protocols as pure steps. Not audited."""

from modicum.federated import (
    attestation,
    ciphers,
    enclave,
    field,
    gramine,
    lattice,
    learning,
    partition,
    secagg,
    sefl,
    sefl_lattice,
    sefl_norm,
    upload,
    wire,
)
from modicum.federated.fixed_point import Encoded, FixedPointSpec, decode, decode_exact, encode, ring_sum
from modicum.federated.masks import add_masks, chacha20_words, key_words, mask_words, openssl_words
from modicum.federated.noise import discrete_gaussian, privacy_loss
from modicum.federated.secagg_messages import RefusedError, SecAggSpec
from modicum.federated.sefl import refuse_own_supports
from modicum.federated.sefl_messages import SeflSpec
from modicum.federated.upload import common_support, topk_upload

__all__ = [
    "Encoded",
    "FixedPointSpec",
    "RefusedError",
    "SecAggSpec",
    "SeflSpec",
    "add_masks",
    "attestation",
    "chacha20_words",
    "ciphers",
    "common_support",
    "decode",
    "decode_exact",
    "discrete_gaussian",
    "enclave",
    "encode",
    "field",
    "gramine",
    "key_words",
    "lattice",
    "learning",
    "mask_words",
    "openssl_words",
    "partition",
    "privacy_loss",
    "refuse_own_supports",
    "ring_sum",
    "secagg",
    "sefl",
    "sefl_lattice",
    "sefl_norm",
    "topk_upload",
    "upload",
    "wire",
]
