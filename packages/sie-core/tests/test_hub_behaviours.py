"""What hubs and what lies between do: each way is met by the same fetch, and the file is right or refused."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sie_core.artifacts import hf_layout
from sie_core.artifacts.digest import digest_of, hex_of
from sie_core.artifacts.errors import NoPermission, Replaced, TransferError, TrustError, Unreachable
from sie_core.artifacts.manifest import FileEntry, Manifest
from sie_core.artifacts.ranges import RangedFetch, journal_file, partial_file
from sie_core.artifacts.stores.hub import Hub
from sie_core.artifacts.stores.hub_errors import retry_after_s
from sie_core.artifacts.transfer import fetch_file, fetch_snapshot, no_progress
from sie_core.ids import ModelId, Revision
from sie_testing import hub as stand_in
from sie_testing.authority import Authority
from sie_testing.hub import Fault, FaultKind, serving_hub
from sie_testing.proxy import Proxy, serving_proxy
from sie_testing.store_suite import blob

MODEL = ModelId("acme/tiny")
REVISION = Revision("1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
SMALL, LARGE = b'{"hidden_size": 8}', blob(300_000)
FILES = {"config.json": SMALL, "model.safetensors": LARGE}
NAME = hf_layout.snapshot_file(MODEL, REVISION, "model.safetensors")
BLOB = f"*{hex_of(digest_of(LARGE))}"
ENTRY = FileEntry(path="model.safetensors", digest=digest_of(LARGE), size_bytes=len(LARGE))
MANIFEST = Manifest(
    repo=MODEL,
    revision=REVISION,
    files=tuple(FileEntry(path=path, digest=digest_of(data), size_bytes=len(data)) for path, data in FILES.items()),
)


@dataclass
class Waits:
    """A patience that waits for nothing and notes what it was asked for."""

    errors: list[TransferError]

    def __call__(self, error: TransferError, failures: int) -> float:
        if not error.transient or failures > 3:
            raise error
        self.errors.append(error)
        return 0.0


@pytest.fixture
def waits() -> Waits:
    return Waits([])


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    for path, data in FILES.items():
        file = tmp_path / "hub" / MODEL / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "hub"


@pytest.fixture
def behind(repositories: Path) -> stand_in.Hub:
    return stand_in.Hub(repositories, pins={MODEL: REVISION}, lfs_above_bytes=1000)


@pytest.fixture
def hub(behind: stand_in.Hub) -> Iterator[Hub]:
    with serving_hub(behind) as endpoint:
        yield Hub(endpoint)


def in_ranges(hub: Hub, target: Path, waits: Waits, *, range_bytes: int = 50_000) -> None:
    """The large file, in ranges of 50 kB."""
    store = hub.store(MODEL, REVISION)
    fetch = RangedFetch(store, NAME, target, ENTRY, progress=no_progress, patience=waits, range_bytes=range_bytes)
    assert fetch.run() == ENTRY.digest
    fetch.publish()


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(FaultKind.TRUNCATE, match=BLOB, after_bytes=20_000, times=5)],
        [Fault(FaultKind.TRUNCATE, match=BLOB, after_bytes=0, times=2)],
        [Fault(FaultKind.WHOLE, match=BLOB)],
        [Fault(FaultKind.WHOLE, match=BLOB), Fault(FaultKind.TRUNCATE, match=BLOB, after_bytes=120_000, times=8)],
        [Fault(FaultKind.STATUS, match="*/resolve/*", status=429, retry_after_s=1, times=3)],
        [Fault(FaultKind.STATUS, match="*/resolve/*", status=503, times=2)],
        [Fault(FaultKind.STATUS, match=BLOB, status=500, times=2)],
        [Fault(FaultKind.STATUS, match=BLOB, status=403, times=1)],
        [Fault(FaultKind.SLOW, match=BLOB, bytes_per_s=10_000_000)],
    ],
    ids=lambda faults: "+".join(f"{fault.kind}{fault.after_bytes or ''}" for fault in faults),
)
def test_what_passes_is_got_over(
    behind: stand_in.Hub, hub: Hub, tmp_path: Path, waits: Waits, faults: list[Fault]
) -> None:
    behind.set_faults(*faults)
    in_ranges(hub, tmp_path / "x", waits)

    assert (tmp_path / "x").read_bytes() == LARGE
    assert not journal_file(tmp_path / "x").exists()


@pytest.mark.parametrize("after_bytes", [0, 20_000])
def test_peer_that_falls_silent_is_left_and_asked_again(
    behind: stand_in.Hub, hub: Hub, tmp_path: Path, waits: Waits, after_bytes: int
) -> None:
    behind.set_faults(Fault(FaultKind.STALL, match=BLOB, after_bytes=after_bytes, times=1))
    in_ranges(Hub(hub.endpoint, timeout_s=1.0), tmp_path / "x", waits)

    assert (tmp_path / "x").read_bytes() == LARGE


def test_far_end_without_ranges_sends_the_file_once_and_not_once_a_range(
    behind: stand_in.Hub, hub: Hub, tmp_path: Path, waits: Waits
) -> None:
    behind.set_faults(Fault(FaultKind.WHOLE, match=BLOB))
    in_ranges(hub, tmp_path / "x", waits, range_bytes=10_000)

    whole = [seen for seen in behind.seen if seen.origin == "blobs" and seen.range is None]
    assert len(whole) == 1


def test_file_that_is_replaced_while_it_comes_is_begun_anew_and_that_is_said(
    behind: stand_in.Hub, hub: Hub, tmp_path: Path, waits: Waits
) -> None:
    """Part of it under one ETag; then the connection breaks, and the rest has another."""
    behind.set_faults(Fault(FaultKind.TRUNCATE, match=BLOB, after_bytes=100_000, times=1))
    behind.on_sent = lambda sent: behind.set_faults(Fault(FaultKind.ETAG, match=BLOB))
    moved: list[int] = []

    fetch_file(
        hub.store(MODEL, REVISION),
        NAME,
        tmp_path / "x",
        ENTRY,
        progress=lambda path, size_bytes: moved.append(size_bytes),
        patience=waits,
    )
    assert (tmp_path / "x").read_bytes() == LARGE
    assert [type(error) for error in waits.errors] == [Replaced]
    assert "it is begun anew" in waits.errors[0].message
    assert sum(moved) == len(LARGE)
    assert min(moved) < 0


def test_without_patience_a_replaced_file_leaves_nothing_to_go_on_from(
    behind: stand_in.Hub, hub: Hub, tmp_path: Path
) -> None:
    behind.set_faults(Fault(FaultKind.TRUNCATE, match=BLOB, after_bytes=100_000, times=1))
    behind.on_sent = lambda sent: behind.set_faults(Fault(FaultKind.ETAG, match=BLOB))

    with pytest.raises(Replaced):
        fetch_file(hub.store(MODEL, REVISION), NAME, tmp_path / "x", ENTRY)
    assert not partial_file(tmp_path / "x").exists()


def test_wrong_bytes_are_refused_with_both_digests(behind: stand_in.Hub, hub: Hub, tmp_path: Path) -> None:
    behind.set_faults(Fault(FaultKind.FLIP, match=BLOB, after_bytes=200_001))

    with pytest.raises(TrustError, match=r"model\.safetensors") as caught:
        fetch_snapshot(hub.store(MODEL, REVISION), MANIFEST, tmp_path / "snapshot")
    assert caught.value.want.startswith(ENTRY.digest)
    assert [path.name for path in (tmp_path / "snapshot").iterdir()] == ["config.json"]


def test_small_file_that_is_cut_short_is_no_other_file(behind: stand_in.Hub, hub: Hub) -> None:
    """Its bytes are what its digest is made of: a broken connection must not look like an altered file."""
    behind.set_faults(Fault(FaultKind.TRUNCATE, match="*/config.json", after_bytes=5))

    with pytest.raises(Unreachable) as caught:
        hub.manifest(MODEL, REVISION)
    assert caught.value.transient


def test_signed_address_that_is_good_once_is_asked_for_anew(repositories: Path, tmp_path: Path, waits: Waits) -> None:
    behind = stand_in.Hub(repositories, pins={MODEL: REVISION}, lfs_above_bytes=1000, signed=True, xet=True)
    behind.set_faults(Fault(FaultKind.TRUNCATE, match=BLOB, after_bytes=20_000, times=3))
    with serving_hub(behind) as endpoint:
        in_ranges(Hub(endpoint), tmp_path / "x", waits)

    assert (tmp_path / "x").read_bytes() == LARGE


def test_file_that_xet_keeps_has_the_sha256_that_the_hub_lists(repositories: Path, tmp_path: Path) -> None:
    """Its bytes come through the plain address, under an ETag that is another 64 hex digits."""
    behind = stand_in.Hub(repositories, pins={MODEL: REVISION}, lfs_above_bytes=1000, xet=True)
    with serving_hub(behind) as endpoint:
        manifest = Hub(endpoint).manifest(MODEL, REVISION)
        fetch_snapshot(Hub(endpoint).store(MODEL, REVISION), manifest, tmp_path / "snapshot")

    assert manifest == MANIFEST
    assert (tmp_path / "snapshot" / "model.safetensors").read_bytes() == LARGE


def test_storage_that_goes_on_refusing_is_told_from_the_hub(behind: stand_in.Hub, hub: Hub, tmp_path: Path) -> None:
    behind.set_faults(Fault(FaultKind.STATUS, match=BLOB, status=403))

    with pytest.raises(NoPermission, match=r"where the hub at .* keeps large files, answered 403") as caught:
        fetch_file(hub.store(MODEL, REVISION), NAME, tmp_path / "x", ENTRY)
    assert "firewall" in (caught.value.hint or "")


def test_gated_model_names_the_page_to_accept(behind: stand_in.Hub, hub: Hub) -> None:
    behind.set_faults(Fault(FaultKind.GATED))

    for reader in (hub, Hub(hub.endpoint, token="hf_x")):
        with pytest.raises(NoPermission) as caught:
            reader.store(MODEL, REVISION).open(hf_layout.snapshot_file(MODEL, REVISION, "config.json"))
        assert f"{hub.endpoint}/{MODEL}, with the account" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Mon, 23 Nov 2026 10:01:30 GMT", "Date": "Mon, 23 Nov 2026 10:00:00 GMT"}, 90.0),
        ({"Retry-After": "Mon, 23 Nov 2026 10:00:00 GMT", "Date": "Mon, 23 Nov 2026 10:01:00 GMT"}, 0.0),
        ({"Retry-After": "Mon, 23 Nov 2026 10:01:30 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"RateLimit": '"resolvers";r=0;t=42'}, 42.0),
        ({}, None),
    ],
)
def test_how_long_the_hub_asks_to_be_left_alone(headers: dict[str, str], seconds: float | None) -> None:
    from email.message import Message

    message = Message()
    for name, value in headers.items():
        message[name] = value
    assert retry_after_s(message) == seconds


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def test_private_authority_is_trusted_when_it_is_named_and_not_before(
    behind: stand_in.Hub, authority: Authority
) -> None:
    with serving_hub(behind, tls=authority.tls) as endpoint:
        assert Hub(endpoint, ca_bundle=authority.certificate).manifest(MODEL, REVISION) == MANIFEST
        with pytest.raises(Unreachable, match="is not trusted") as caught:
            Hub(endpoint).resolve(MODEL)

    assert not caught.value.transient
    assert "SSL_CERT_FILE or REQUESTS_CA_BUNDLE" in (caught.value.hint or "")


def test_system_s_own_way_of_naming_an_authority_counts(behind: stand_in.Hub, authority: Authority) -> None:
    """OpenSSL reads `SSL_CERT_FILE` once a process: hence another one."""
    script = f"from sie_core.artifacts.stores.hub import Hub; import sys; print(Hub(sys.argv[1]).resolve({MODEL!r}))"
    with serving_hub(behind, tls=authority.tls) as endpoint:
        ran = subprocess.run(
            [sys.executable, "-c", script, endpoint],
            env={"SSL_CERT_FILE": str(authority.certificate)},
            capture_output=True,
            text=True,
            check=True,
        )

    assert ran.stdout.strip() == REVISION


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_certificates_that_cannot_be_read_are_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)

    with pytest.raises(ValueError, match=r"bundle\.pem holds no certificates"):
        Hub(ca_bundle=bundle)


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a proxy the one of this process."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def use(place: str) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{place}")
        monkeypatch.setenv("HTTP_PROXY", f"http://{place}")

    return use


@pytest.mark.parametrize("secure", [True, False])
def test_proxy_carries_everything_and_the_storage_too(
    behind: stand_in.Hub, authority: Authority, through: Callable[[str], None], tmp_path: Path, secure: bool
) -> None:
    proxy = Proxy(login="me:secret")
    with (
        serving_proxy(proxy) as place,
        serving_hub(behind, tls=authority.tls if secure else None) as endpoint,
    ):
        through(f"me:secret@{place}")
        hub = Hub(endpoint, ca_bundle=authority.certificate)
        fetch_snapshot(hub.store(MODEL, REVISION), hub.manifest(MODEL, REVISION), tmp_path / "snapshot")
        asked, methods = len(behind.seen), {method for method, _ in proxy.asked}

    assert (tmp_path / "snapshot" / "model.safetensors").read_bytes() == LARGE
    assert len(proxy.asked) == asked
    assert methods == {"CONNECT" if secure else "GET"}


@pytest.mark.parametrize("secure", [True, False])
def test_proxy_that_wants_a_login_is_named_with_the_variable(
    behind: stand_in.Hub, authority: Authority, through: Callable[[str], None], secure: bool
) -> None:
    with (
        serving_proxy(Proxy(login="me:secret")) as place,
        serving_hub(behind, tls=authority.tls if secure else None) as endpoint,
    ):
        through(f"me:wrong@{place}")
        with pytest.raises(NoPermission) as caught:
            Hub(endpoint, ca_bundle=authority.certificate).resolve(MODEL)

    assert "proxy" in caught.value.message
    assert "HTTPS_PROXY" in (caught.value.hint or "")
    assert "wrong" not in f"{caught.value} {caught.value.hint}"


def test_no_proxy_is_believed(
    behind: stand_in.Hub, through: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    with serving_proxy(proxy) as place, serving_hub(behind) as endpoint:
        through(place)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

        assert Hub(endpoint).resolve(MODEL) == REVISION
    assert proxy.asked == []


def test_proxy_that_lets_nobody_to_the_storage_is_told_at_once(
    behind: stand_in.Hub, authority: Authority, through: Callable[[str], None], tmp_path: Path
) -> None:
    proxy = Proxy()
    with serving_proxy(proxy) as place, serving_hub(behind, tls=authority.tls) as endpoint:
        through(place)
        proxy.refused.add(behind.blobs_origin.format(host="127.0.0.1").removeprefix("https://"))
        hub = Hub(endpoint, ca_bundle=authority.certificate)
        with pytest.raises(NoPermission, match="a proxy lets nobody through"):
            fetch_file(hub.store(MODEL, REVISION), NAME, tmp_path / "x", ENTRY)
