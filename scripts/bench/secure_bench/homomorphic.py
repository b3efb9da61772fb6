"""TenSEAL and phe (Paillier) on vectors: prints JSON. Runs in an environment with tenseal and phe.

Paillier packs 52 numbers of 39 bits into a plaintext of 2,048 bits; a few ciphertexts are timed and the rest is
computed from them, for the whole vector would take minutes.
"""

import json
import sys

import numpy as np
from timing import timed


def tenseal(dimension, scheme, degree):
    """Encrypts two vectors, adds them and decrypts the sum; bytes of one."""
    import tenseal as ts

    rng = np.random.default_rng(0)
    if scheme == "ckks":
        moduli = [40, 20, 40] if degree == 4096 else [60, 40, 60]
        context = ts.context(ts.SCHEME_TYPE.CKKS, degree, coeff_mod_bit_sizes=moduli)
        context.global_scale, slots, make = 2.0 ** (20 if degree == 4096 else 40), degree // 2, ts.ckks_vector
        values = rng.normal(0, 0.1, (2, dimension))
    else:
        context = ts.context(ts.SCHEME_TYPE.BFV, degree, plain_modulus=1_032_193)
        slots, make = degree, ts.bfv_vector
        values = rng.integers(0, 2**18, (2, dimension))
    chunks = [values[:, at : at + slots] for at in range(0, dimension, slots)]
    encrypted, spent = [], {"encrypt": 0.0, "add": 0.0, "decrypt": 0.0}
    for side in range(2):
        made, seconds = timed(lambda side=side: [make(context, chunk[side].tolist()) for chunk in chunks])
        encrypted.append(made)
        spent["encrypt"] += seconds / 2
    sums, spent["add"] = timed(lambda: [a + b for a, b in zip(*encrypted, strict=True)])
    found, spent["decrypt"] = timed(lambda: np.concatenate([each.decrypt() for each in sums]))
    error = float(np.abs(found - values.sum(axis=0)).max())
    size = sum(len(each.serialize()) for each in encrypted[0])
    return {"version": ts.__version__, "cpu_seconds": spent, "bytes": size, "largest_error": error}


def paillier(dimension, bits=2048, slot=39, sample=6):
    """A few packed ciphertexts; the times are those of the whole vector, in proportion."""
    import phe

    public, private = phe.generate_paillier_keypair(n_length=bits)
    each = (bits - 1) // slot
    values = np.random.default_rng(0).integers(0, 2**32, (2, sample, each)).tolist()
    packed = [[sum(value << slot * at for at, value in enumerate(row)) for row in half] for half in values]
    made, encrypt = timed(lambda: [public.raw_encrypt(number) for half in packed for number in half])
    square = public.nsquare
    sums, add = timed(lambda: [made[at] * made[at + sample] % square for at in range(sample)])
    found, decrypt = timed(lambda: [private.raw_decrypt(number) for number in sums])
    assert all(number == packed[0][at] + packed[1][at] for at, number in enumerate(found))
    whole = -(-dimension // each)
    spent = {"encrypt": encrypt / 2 * whole / sample, "add": add * whole / sample, "decrypt": decrypt * whole / sample}
    counts = {"measured": sample, "of": whole}
    return {"version": phe.__version__, "cpu_seconds": spent, "bytes": whole * bits // 4, **counts}


if __name__ == "__main__":
    size = int(sys.argv[1])
    print(
        json.dumps(
            {
                "tenseal_ckks_4096": tenseal(size, "ckks", 4096),
                "tenseal_ckks_8192": tenseal(size, "ckks", 8192),
                "tenseal_bfv_4096": tenseal(size, "bfv", 4096),
                "paillier_2048_packed": paillier(size),
            }
        )
    )
