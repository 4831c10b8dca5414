"""Write parity volumes: the exclusive or of volumes that are there, so that any one of them can be made again.

The volumes are read side by side, a MiB of each at a time, and hashed on the way: a parity volume stands for what
`SHA256SUMS` says and for nothing else. A run that was killed reads again and writes only what is not there yet.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sie_airgap.archive.parity_format import MEMBER_NAME, PARITY_INDEX_NAME, Parity, encode_parity
from sie_airgap.archive.volume_format import CHUNK_BYTES, encode_head, member_header
from sie_airgap.archive.volume_writer import writing
from sie_airgap.progress import Task
from sie_core.artifacts.digest import Digest, digest_of
from sie_core.artifacts.errors import TrustError
from sie_core.artifacts.hashing import Hashing


def exclusive_or(pieces: Sequence[bytes], size_bytes: int) -> bytes:
    """Of byte strings of `size_bytes` at most, each followed by zeros to that length."""
    whole = np.zeros(size_bytes, np.uint8)
    for piece in pieces:
        whole[: len(piece)] ^= np.frombuffer(piece, np.uint8)
    return whole.tobytes()


def write_parity(parity: Parity, folder: Path, task: Task) -> Digest:
    """The draft of one parity volume, from the volumes in `folder`; its digest.

    Raises:
        TrustError: a volume is not what `parity` says, and so not what was packed.
        NoSpace, NoPermission: of the folder.
    """
    head = encode_head(PARITY_INDEX_NAME, encode_parity(parity))
    with writing(folder / parity.name, task) as writer:
        writer.put(head + member_header(MEMBER_NAME, parity.parity_bytes))
        for chunk in _chunks(parity, folder):
            writer.put_content(chunk)
        writer.end_member(parity.parity_bytes)
        writer.end(digest_of(head))
        return writer.digest


def _chunks(parity: Parity, folder: Path) -> Iterator[bytes]:
    with ExitStack() as stack:
        files: list[BinaryIO] = [stack.enter_context((folder / one.name).open("rb")) for one in parity.volumes]
        sums = [Hashing() for _ in files]
        left = parity.parity_bytes
        while left:
            size_bytes = min(CHUNK_BYTES, left)
            pieces = [file.read(size_bytes) for file in files]
            for running, piece in zip(sums, pieces, strict=True):
                running.update(piece)
            yield exclusive_or(pieces, size_bytes)
            left -= size_bytes
    for volume, running in zip(parity.volumes, sums, strict=True):
        if running.digest != volume.digest:
            raise TrustError(
                f"`{volume.name}` is no longer what was packed",
                where=str(folder / volume.name),
                want=volume.digest,
                have=running.digest,
                hint=f"remove that file and run the same command again: `{volume.name}` is cut again",
            )
