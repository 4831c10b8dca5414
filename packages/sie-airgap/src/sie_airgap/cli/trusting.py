"""The verbs about whom to believe: trust, sign, rollback."""

import os
import sys
from pathlib import Path
from typing import NamedTuple

import click

from sie_airgap.archive.media import read_media
from sie_airgap.cli.console import STORE, Console, dry_run_option, is_store, output_option, store_option, written
from sie_airgap.cli.guarding import Guard, trust_file_option, trust_options
from sie_airgap.failures import Drift, Incomplete, Misused
from sie_airgap.progress import counted
from sie_airgap.store.blobs import SIGNATURES_NAME, BlobFolder, read_lock, told_os_errors, write_atomically
from sie_airgap.store.contents import LOCK_NAME
from sie_airgap.store.kept import find, restore
from sie_airgap.trust import keys
from sie_airgap.trust.dsse import Signature, pae, signature
from sie_airgap.trust.files import add_signature, read_envelope, read_pinned, with_signature, write_pinned
from sie_airgap.trust.judging import check_root
from sie_airgap.trust.pinned import aloud, pin
from sie_airgap.trust.root import ROOT_TYPE, ROOT_VERSION, Role, Root, decode_root, encode_root, root_digest
from sie_airgap.trust.statement import PAYLOAD_TYPE, statement
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.lock import Lock, lock_digest

_FILE = click.Path(path_type=Path, dir_okay=False)
_THERE = click.Path(path_type=Path, dir_okay=False, exists=True)

_passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Holds the key's passphrase, one line; /dev/fd/3 works.  [default: asked on the terminal]",
)


def _passphrase(path: Path | None, *, of: Path, new: bool = False) -> bytes:
    if path is not None:
        given = path.read_bytes().split(b"\n", 1)[0].rstrip(b"\r")
    elif sys.stdin.isatty():
        given = click.prompt(f"passphrase of {of}", hide_input=True, confirmation_prompt=new, err=True).encode()
    else:
        raise Misused(
            f"nobody can be asked for the passphrase of {of}: this is no terminal",
            hint="--passphrase-file names a file that holds it",
        )
    if not given:
        raise Misused(f"the passphrase of {of} is empty: whoever had the file could sign with it")
    return given


@click.group()
def trust() -> None:
    """Say whose signature a lock needs: make keys, make a root of them, pin it on the far side.

    \b
    Each signer      sie-airgap trust key alice
    One of them      sie-airgap trust root root.json \\
                         --lock-key alice.pub --root-key bob.pub
    Holders of root  sie-airgap sign root.json --key bob.pem
    Far side, once   sie-airgap trust pin root.json.dsse
                     and compare its digest, read aloud
    Each release     sie-airgap sign --key alice.pem
                     before or after `pack`

    Where nothing is pinned no signature is asked for, and every verb shows the lock's digest to compare.
    """


@trust.command("key", short_help="A pair of keys, for one signer.")
@click.argument("name", type=_FILE)
@_passphrase_option
@dry_run_option
@output_option
def key_command(name: Path, passphrase_file: Path | None, dry_run: bool, output: str) -> None:
    """Make NAME.pem, which signs and stays with its owner, and NAME.pub, which everybody may have.

    ECDSA over P-256. The private key is written under a passphrase, readable by its owner only.

    A key that is there is never written over.

    \b
    Example:  sie-airgap trust key alice
    """
    private, public = name.with_name(f"{name.name}.pem"), name.with_name(f"{name.name}.pub")
    for path in (private, public):
        if path.exists():
            raise Misused(
                f"{path} is there already, and a key that is lost cannot be made again",
                hint="give the new key another name",
            )
    if dry_run:
        facts: dict[str, object] = {"private": str(private), "public": str(public), "key": None}
        Console(output).data(f"{private} and {public} would be made", facts)
        return
    passphrase = _passphrase(passphrase_file, of=private, new=True)
    key = keys.new_key()
    made: list[Path] = []
    try:
        _write_private(private, keys.private_pem(key, passphrase), made)
        write_atomically(public, keys.public_pem(key.public_key()).encode())
    except BaseException:  # Ctrl-C too: half a pair would stand in the way of the next try
        for path in made:
            path.unlink(missing_ok=True)
        raise
    keyid = keys.key_id(key.public_key())
    Console(output).data(
        f"{private} and {public}: key {keyid}", {"private": str(private), "public": str(public), "key": keyid}
    )


def _write_private(path: Path, pem: bytes, made: list[Path]) -> None:
    """Never over a file that is there. `made` gets the path as soon as it is ours."""
    with told_os_errors(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        made.append(path)
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())


def _role(paths: tuple[Path, ...], threshold: int, name: str) -> tuple[Role, dict[str, str]]:
    found = {}
    for path in paths:
        key = keys.read_public(path.read_bytes(), where=str(path))
        found[keys.key_id(key)] = keys.public_pem(key)
    if not 1 <= threshold <= len(found):
        raise Misused(f"--{name}-threshold {threshold}: want 1 to {len(found)}, the --{name}-key that were named")
    return Role(tuple(sorted(found)), threshold), found


@trust.command("root", short_help="Which keys count, and how many of them.")
@click.argument("path", type=_FILE)
@click.option(
    "--lock-key", "lock_keys", type=_THERE, multiple=True, required=True, help="May sign locks (several times)."
)
@click.option(
    "--root-key", "root_keys", type=_THERE, multiple=True, required=True, help="May sign the next root (several times)."
)
@click.option("--lock-threshold", type=int, default=1, show_default=True, help="How many of them a lock needs.")
@click.option("--root-threshold", type=int, default=1, show_default=True, help="How many of them a root needs.")
@click.option("--after", type=_THERE, help="The root that this one follows.  [default: it is the first]")
@dry_run_option
@output_option
def root_command(
    path: Path,
    lock_keys: tuple[Path, ...],
    root_keys: tuple[Path, ...],
    lock_threshold: int,
    root_threshold: int,
    after: Path | None,
    dry_run: bool,
    output: str,
) -> None:
    """Write a root to PATH, which its keys then `sign`.

    The next one, with --after, needs the signatures of the one before and its own: that is how a key is replaced.

    \b
    Example:  sie-airgap trust root root.json \\
                  --lock-key alice.pub --root-key bob.pub
    """
    before = decode_root(after.read_bytes(), where=str(after)) if after is not None else None
    lock_role, for_locks = _role(lock_keys, lock_threshold, "lock")
    root_role, for_roots = _role(root_keys, root_threshold, "root")
    root = Root(
        version=ROOT_VERSION,
        number=1 if before is None else before.number + 1,
        keys={**for_locks, **for_roots},
        lock=lock_role,
        root=root_role,
    )
    text = encode_root(root).decode()
    if path.exists() and path.read_bytes() != text.encode():
        raise Misused(
            f"{path} is there already, and another root",
            hint="give the next root a name of its own, and --after the last one",
        )
    state = written(path, text, dry_run=dry_run)
    needed = f"{root_threshold} of its own keys" + (
        "" if before is None else f" and {before.root.threshold} of root {before.number}'s"
    )
    Console(output).data(
        f"{path} {state}: root {root.number}, to be signed by {needed}\n{aloud(root_digest(root))}",
        {"root": str(path), "state": state, "number": root.number, "digest": root_digest(root)},
    )


@trust.command("pin", short_help="Believe a root from now on.")
@click.argument("path", type=_THERE)
@trust_file_option
@dry_run_option
@output_option
def pin_command(path: Path, trust_path: Path, dry_run: bool, output: str) -> None:
    """Pin the signed root in PATH (ROOT.dsse): the first one, or the one after that which is pinned.

    Compare the digest that this prints with what the holders of its keys read out, before anything is unpacked.

    \b
    Example:  sie-airgap trust pin root.json.dsse
    """
    console = Console(output)
    before = read_pinned(trust_path)
    sealed = read_envelope(path)
    if before is not None and sealed.envelope.payload == encode_root(before.root):
        pinned, said = before, "is pinned already"
    else:
        pinned = pin(check_root(sealed, before.root if before is not None else None), before)
        said = "would be pinned" if dry_run else "is pinned"
        if not dry_run:
            write_pinned(trust_path, pinned)
    root = pinned.root
    console.data(
        f"root {root.number} {said} in {trust_path}; a lock needs {root.lock.threshold} of {len(root.lock.keys)} keys\n"
        f"{aloud(root_digest(root))}",
        {"root": root.number, "digest": root_digest(root), "trust": str(trust_path), "state": said},
    )


@trust.command("show", short_help="What is pinned, and which locks were taken.")
@trust_file_option
@output_option
def show_command(trust_path: Path, output: str) -> None:
    """Say which root is pinned here, whose keys count, and which locks were taken from media.

    \b
    Example:  sie-airgap trust show
    """
    pinned = read_pinned(trust_path)
    if pinned is None:
        raise Incomplete(f"nothing is pinned: {trust_path} is not there", hint="`sie-airgap trust pin ROOT` pins one")
    root = pinned.root
    lines = [
        f"root     {root.number}, {root_digest(root)}",
        *(f"lock     {keyid}" for keyid in root.lock.keys),
        f"         {root.lock.threshold} of them sign a lock",
        *(f"root     {keyid}" for keyid in root.root.keys),
        f"         {root.root.threshold} of them sign the next root",
        *(
            f"taken    number {one.serial}, {one.lock}, "
            + (
                f"signed by {', '.join(f'{keyid[:16]}…' for keyid in one.signed_by)}"
                if one.signed_by
                else "NOT VERIFIED"
            )
            for one in pinned.taken
        ),
    ]
    facts = {
        "root": root.number,
        "digest": root_digest(root),
        "highest_serial": pinned.highest_serial,
        "taken": [{"serial": one.serial, "lock": one.lock, "signed_by": one.signed_by} for one in pinned.taken],
    }
    Console(output).data("\n".join(lines), facts)


class _Signable(NamedTuple):
    """What a signature is over, how it is called, the file that holds its signatures, and the lock where it is one."""

    named: str
    kind: str
    payload: bytes
    digest: Digest
    signatures: Path
    lock: Lock | None


def _signable(what: Path) -> _Signable:
    if what.suffix == ".dsse":
        raise Misused(f"{what} holds signatures", hint=f"name what is signed: {what.with_suffix('')}")
    data = b"" if what.is_dir() else what.read_bytes()
    if b'"threshold"' in data:
        root = decode_root(data, where=str(what))
        return _Signable(f"root {root.number}", ROOT_TYPE, data, root_digest(root), _beside(what), None)
    if what.is_dir() and not is_store(what):
        lock, signatures = read_media([what]).lock, what / SIGNATURES_NAME
    else:
        path = what / LOCK_NAME if what.is_dir() else what
        lock, signatures = read_lock(path), _beside(path)
    return _Signable(f"lock number {lock.serial}", PAYLOAD_TYPE, statement(lock), lock_digest(lock), signatures, lock)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".dsse")


@click.command()
@click.argument("what", type=click.Path(path_type=Path, exists=True), default=Path(LOCK_NAME))
@click.option("--key", "key_path", type=_THERE, required=True, help="The private key, a `.pem` of `trust key`.")
@_passphrase_option
@store_option
@dry_run_option
@output_option
def sign(what: Path, key_path: Path, passphrase_file: Path | None, store: Path, dry_run: bool, output: str) -> None:
    """Add a signature to WHAT: a lock, the folder of an archive, or a root.  [default: airgap.lock]

    It goes into a file beside what is signed, as airgap.lock.dsse, and into the store where that is for this lock, so
    that `pack` carries it. In an archive's folder it counts as well: nothing has to be packed again.

    \b
    Example:  sie-airgap sign --key alice.pem
              sie-airgap sign root.json --key bob.pem
    """
    over = _signable(what)
    passphrase = _passphrase(passphrase_file, of=key_path)
    key = keys.read_private(key_path.read_bytes(), passphrase, where=str(key_path))
    keyid = keys.key_id(key.public_key())
    added = signature(keyid, keys.sign(key, pae(over.kind, over.payload)))
    made = with_signature(over.signatures, over.kind, over.payload, added)
    if not dry_run:
        _write_signatures(over, added, store)
    count = counted(len(made.signatures), "signature")
    is_signed, holds = ("would be", "would hold") if dry_run else ("is", "holds")
    Console(output).data(
        f"{over.named} {is_signed} signed by key {keyid[:16]}…; {over.signatures} {holds} {count}\n"
        f"{aloud(over.digest)}",
        {"signatures": str(over.signatures), "of": over.digest, "key": keyid, "count": len(made.signatures)},
    )


def _write_signatures(over: _Signable, added: Signature, store: Path) -> None:
    """Beside what is signed, and in the store that is for the same lock."""
    in_store = store / SIGNATURES_NAME
    add_signature(over.signatures, over.kind, over.payload, added)
    if over.lock is not None and _is_for(store, over.lock) and over.signatures.resolve() != in_store.resolve():
        add_signature(in_store, over.kind, over.payload, added)


def _is_for(store: Path, lock: Lock) -> bool:
    path = store / LOCK_NAME
    return path.exists() and lock_digest(read_lock(path)) == lock_digest(lock)


@click.command()
@click.option(
    "--to", "serial", type=int, required=True, metavar="SERIAL", help="The number of a lock that was taken here."
)
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=STORE,
    show_default=True,
    help="The far side's store.",
)
@trust_options
@dry_run_option
@output_option
def rollback(serial: int, store: Path, trust_path: Path, insecure: bool, dry_run: bool, output: str) -> None:
    """Make a store be for an earlier lock again: one that was unpacked into it, whose blobs are all there.

    Then `mirror` and `values` as after `unpack`, and `helm upgrade`. Media with an older lock are not taken instead.

    \b
    Example:  sie-airgap rollback --to 6
    """
    console = Console(output)
    folder = BlobFolder(store)
    back = find(folder, serial)
    guard = Guard(trust_path, insecure=insecure, console=console)
    guard.check(BlobFolder(back.folder), back.lock)
    if not guard.was_taken(back.lock):
        raise Drift(
            f"lock number {serial} ({lock_digest(back.lock)}) is in {store}, and {trust_path} knows nothing of it",
            hint="unpack its media",
        )
    have = read_lock(store / LOCK_NAME)
    if not dry_run:
        restore(folder, back)
    said = "would be" if dry_run else "is"
    console.data(
        f"{store} {said} for lock number {serial}, {lock_digest(back.lock)}; it was for number {have.serial}",
        {"store": str(store), "serial": serial, "lock": lock_digest(back.lock), "before": have.serial},
    )
