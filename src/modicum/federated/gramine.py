"""The enclave's process under Gramine and SGX: its manifest, and quotes from the device that Gramine shows it.

No SGX hardware was at hand: the manifest is rendered and parsed, the device is tested as a folder of files, and the
quotes that it would give are verified on public samples (`attestation`). With hardware:

    python -m modicum.federated.gramine > modicum-enclave.manifest
    gramine-sgx-sign --manifest modicum-enclave.manifest --output modicum-enclave.manifest.sgx
    gramine-sgx modicum-enclave        # what ProcessEnclave(spec, ("gramine-sgx", "modicum-enclave")) starts

`gramine-sgx-sign` prints the measurement that belongs into `attestation.Policy`.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from modicum.core import check

DEVICE = Path("/dev/attestation")
"""Where Gramine shows its pseudo-files."""
ENCLAVE_SIZES = ("512M", "1G", "2G", "4G", "8G", "16G")

_TEMPLATE = """\
# The enclave of federated sums under Gramine; written by modicum.federated.gramine
libos.entrypoint = "{python}"
loader.entrypoint.uri = "file:{libos}"
loader.argv = ["{python}", "-m", "modicum.federated.enclave_process"]
loader.log_level = "error"

# nothing of the host's environment comes in
loader.env.LD_LIBRARY_PATH = "/lib:/usr/lib:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu"
loader.env.JAX_PLATFORMS = "cpu"
loader.env.OMP_NUM_THREADS = "1"
loader.env.PYTHONDONTWRITEBYTECODE = "1"

fs.mounts = [
  {{ path = "/lib", uri = "file:{runtime}" }},
{mounts}
]

sys.stack.size = "8M"

sgx.debug = false
sgx.remote_attestation = "dcap"
sgx.enclave_size = "{size}"
sgx.max_threads = {threads}
sgx.edmm_enable = false
sgx.file_check_policy = "strict"

# these two are hashed by gramine-sgx-sign
sgx.trusted_files = [
  "file:{libos}",
  "file:{runtime}/",
{trusted}
]
"""


def manifest(
    trusted: Sequence[Path],
    *,
    python: Path | None = None,
    runtime: Path = Path("/usr/lib/x86_64-linux-gnu/gramine/runtime/glibc"),
    libos: Path = Path("/usr/lib/x86_64-linux-gnu/gramine/libsysdb.so"),
    enclave_size: str = "4G",
    threads: int = 32,
) -> str:
    """The manifest in TOML: no debug, DCAP attestation, and files that are trusted by their SHA-256 alone.

    Args:
        trusted: files that the enclave may read, and folders, of which all files are taken.
        python: the interpreter, by default this one.
        runtime: Gramine's C library.
        libos: Gramine's library OS.
        enclave_size: one of `ENCLAVE_SIZES`.
        threads: most threads inside, at least 4.

    Raises:
        ValueError: for a file that is not there, or arguments out of range.
    """
    check.one_of(ENCLAVE_SIZES, enclave_size=enclave_size)
    check.integer(4, threads=threads)
    python = (python or Path(sys.executable)).resolve()
    entries, folders = [], set()
    for path in [python, *trusted]:
        if not path.exists():
            raise ValueError(f"trusted must be files and folders that are there, got {path}")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        folders.add(path if path.is_dir() else path.parent)
        for file in files:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            entries.append(f'  {{ uri = "file:{file}", sha256 = "{digest}" }},')
    mounts = [f'  {{ path = "{folder}", uri = "file:{folder}" }},' for folder in sorted(folders)]
    return _TEMPLATE.format(
        python=python,
        libos=libos,
        runtime=runtime,
        mounts="\n".join(mounts),
        size=enclave_size,
        threads=threads,
        trusted="\n".join(dict.fromkeys(entries)),
    )


def is_inside(device: Path = DEVICE) -> bool:
    """Whether this process runs where quotes can be had."""
    kind = device / "attestation_type"
    return kind.is_file() and kind.read_text().strip() == "dcap"


def quote(data: bytes, device: Path = DEVICE) -> bytes:
    """A quote over 64 bytes, from the device.

    Args:
        data: what the quote binds.
        device: the folder of Gramine's pseudo-files.

    Raises:
        ValueError: for data of another length, or a device that gives no DCAP quotes.
    """
    if len(data) != 64:
        raise ValueError(f"data must be 64 bytes, got {len(data)}")
    if not is_inside(device):
        raise ValueError(f"device must be Gramine's with attestation_type dcap, got {device}")
    (device / "user_report_data").write_bytes(data)
    return (device / "quote").read_bytes()


if __name__ == "__main__":
    prefix = Path(sys.prefix)
    print(manifest([prefix / "lib"]), end="")
