"""Known answers of the primitives, and what is refused."""

import ast
import sys
from pathlib import Path

import pytest

from modicum.federated import ciphers, mask_words


def unhex(text):
    return bytes.fromhex(text)


def test_x25519():
    """RFC 7748, section 5.2, first vector."""
    scalar = unhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = unhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    expected = unhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    assert ciphers.agree(scalar, point) == expected
    assert ciphers.is_usable(point)
    assert ciphers.agree(scalar, ciphers.public_key(point)) == ciphers.agree(point, ciphers.public_key(scalar))


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"short"])
def test_keys_that_agree_with_nobody(key):
    assert not ciphers.is_usable(key)


def test_hkdf():
    """RFC 5869, appendix A.3 (no salt, no info), the first 32 bytes."""
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert ciphers.derive(b"\x0b" * 22, b"").hex() == expected
    assert ciphers.derive(b"\x0b" * 22, b"a") != ciphers.derive(b"\x0b" * 22, b"b")


def test_aes_gcm():
    """Test case 14 of McGrew and Viega, the GCM specification."""
    sealed = ciphers.seal(bytes(32), bytes(12), bytes(16), b"")
    assert sealed[12:].hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    assert ciphers.unseal(bytes(32), sealed, b"") == bytes(16)
    for key, data, bound in ((b"k" * 32, sealed, b""), (bytes(32), sealed[:-1], b""), (bytes(32), sealed, b"x")):
        with pytest.raises(ValueError, match=r"^the ciphertext was altered or is meant for another place$"):
            ciphers.unseal(key, data, bound)


def test_ed25519():
    """RFC 8032, section 7.1, test 1."""
    secret = unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = unhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = unhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert ciphers.verify_key(secret) == public
    assert ciphers.sign(secret, b"") == signature
    assert ciphers.is_signed(public, signature, b"")
    assert not ciphers.is_signed(public, signature, b"x")
    assert not ciphers.is_signed(public, b"", b"")


def test_digest_tells_lists_apart():
    assert ciphers.digest(b"ab", b"c") != ciphers.digest(b"a", b"bc") != ciphers.digest(b"abc")


def test_the_package_is_optional(monkeypatch):
    source = Path(ciphers.__file__).parent
    for path in source.glob("*.py"):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not any("cryptography" in ast.unparse(node) for node in nodes), path
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(ImportError, match=r"pip install 'modicum\[federated\]'"):
        mask_words(bytes(32), 4)
    assert mask_words(bytes(32), 1, "jax") == 0xADE0B876
