"""Secure sums for federated learning: the maths, and protocols as pure steps. Not audited."""

from modicum.federated import ciphers, field, secagg
from modicum.federated.fixed_point import Encoded, FixedPointSpec, decode, decode_exact, encode, ring_sum
from modicum.federated.masks import chacha20_words, key_words, mask_words, openssl_words
from modicum.federated.secagg_messages import RefusedError, SecAggSpec

__all__ = [
    "Encoded",
    "FixedPointSpec",
    "RefusedError",
    "SecAggSpec",
    "chacha20_words",
    "ciphers",
    "decode",
    "decode_exact",
    "encode",
    "field",
    "key_words",
    "mask_words",
    "openssl_words",
    "ring_sum",
    "secagg",
]
