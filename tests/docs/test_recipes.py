"""The recipes, run in their order as an operator runs them, against real servers that stand in for those they name.

SeaweedFS stands in for AWS, fake-gcs-server for Google, JuiceFS's gateway behind TLS for an old MinIO, rclone's server
for Ceph. Discs are real images of ISO 9660, which this machine may have no way to mount: what they hold is laid out
read-only in their place. The diode is a pipe into a process without a network, which loses what it is told to lose.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
import yaml

from sie_airgap.store.blobs import BlobFolder, read_lock, write_lock
from sie_airgap.store.contents import LOCK_NAME
from sie_core.artifacts.lock import lock_digest
from sie_testing import fake_gcs, juicefs, parts, rclone, seaweed, tiny_bert
from sie_testing.authority import Authority
from sie_testing.carried import locked_model, seeded
from sie_testing.front import s3_refusal, standing_in_front
from sie_testing.web import Answer

from .following import Operator

CHECKOUT = Path(__file__).resolve().parents[2]
RECIPES = "docs/guides/recipes"
BUCKET = "sie-models-private"
KEYS = {"AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY}


@pytest.fixture
def recipe(pages) -> Callable[[str], object]:
    return lambda name: pages[f"{RECIPES}/{name}.md"]


def installed(folder: Path, page) -> str:
    """What Helm makes of the values that a page wrote, and of those that it shows."""
    more = [block.text for block in page.blocks if block.language == "yaml"]
    (folder / "more.yaml").write_text("\n".join(more) or "{}")
    chart, files = CHECKOUT / "charts" / "sie-cluster", ["values-offline.yaml", "more.yaml"]
    words = [str(parts.helm()), "template", "sie", str(chart), *(word for file in files for word in ("-f", file))]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cluster_cache(folder: Path) -> dict[str, object]:
    values = yaml.safe_load((folder / "values-offline.yaml").read_text())
    cache: dict[str, object] = values["workers"]["common"]["clusterCache"]
    return cache


def test_aws(recipe, media: Path) -> None:
    with seaweed.running(media) as server:
        server.make_bucket("another")  # it is ready then
        there = {**KEYS, "AWS_ENDPOINT_URL_S3": server.endpoint}
        ran = Operator(media, env=there).read(recipe("aws"))

    assert ran.code == 0, ran.said
    assert f"s3://{BUCKET}/weights/: every byte is what was locked" in ran.said
    assert cluster_cache(media)["region"] == "eu-central-1"
    rendered = installed(media, recipe("aws"))
    assert "eks.amazonaws.com/role-arn: arn:aws:iam::123456789012:role/sie-worker" in rendered
    assert "amazonaws.com/sie/sie-server@sha256:" in rendered
    assert "AWS_SECRET_ACCESS_KEY" not in rendered


def test_google_cloud(recipe, media: Path) -> None:
    with fake_gcs.running(media / "server", bucket=BUCKET) as origin:
        ran = Operator(media, env={"STORAGE_EMULATOR_HOST": origin}).read(recipe("gcs"))

    assert ran.code == 0, ran.said
    assert f"gs://{BUCKET}/weights/: every byte is what was locked" in ran.said
    rendered = installed(media, recipe("gcs"))
    account = re.search(r"serviceAccountName: (\S+-worker)", rendered)
    assert account is not None
    assert f"[sie/{account[1]}]" in ran.said, "the identity is bound to the account that the chart makes"


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An old MinIO behind TLS: its address, and the certificate of the authority."""
    root = tmp_path_factory.mktemp("minio")
    authority = Authority(root / "authority")
    with (
        juicefs.running(root, bucket=BUCKET) as upstream,
        standing_in_front(upstream, tls=authority.tls) as (_, endpoint),
    ):
        yield endpoint, authority.certificate


def at_minio(folder: Path, minio: tuple[str, Path], **env: str) -> Operator:
    endpoint, certificate = minio
    swaps = {
        "https://minio.example.com:9000": endpoint,
        "/etc/ssl/minio-ca.pem": str(certificate),
        "_ID=KEY\n": f"_ID={juicefs.ACCESS_KEY}\n",
        "_KEY=SECRET\n": f"_KEY={juicefs.SECRET_KEY}\n",
        f"aws s3 mb s3://{BUCKET}\n": "",  # this one is made with its bucket
    }
    return Operator(folder, swaps, env)


def test_minio(recipe, media: Path, minio: tuple[str, Path]) -> None:
    by_hand = media / "offline-weights" / "models--org--tiny"
    tiny_bert.write_cross_encoder(by_hand / "snapshots" / ("cd" * 20))
    (by_hand / "refs").mkdir()
    (by_hand / "refs" / "main").write_text("cd" * 20)

    ran = at_minio(media, minio).read(recipe("minio"))

    assert ran.code == 0, ran.said
    assert f"s3://{BUCKET}/weights/: every byte is what was locked" in ran.said
    assert "1 model is adopted" in ran.said
    secrets = re.findall(r"kind: Secret\n(?:.*\n)*?  name: (\S+)", ran.said)
    named = cluster_cache(media)
    assert [named["credentialsSecret"], named["caSecret"]] == secrets
    assert named["endpoint"] == minio[0]
    installed(media, recipe("minio"))


MIRROR = f"sie-airgap mirror weights s3://{BUCKET}/spoilt/ --from media"


@pytest.mark.parametrize(
    ("told", "code", "command", "env"),
    [
        ("is not trusted", 5, MIRROR, {"AWS_CA_BUNDLE": ""}),
        ("names a file that is not there", 5, MIRROR, {"AWS_CA_BUNDLE": "/nowhere.pem"}),
        ("the endpoint does not know this access key", 6, MIRROR, {"AWS_ACCESS_KEY_ID": "somebody"}),
        ("the secret key does not belong to the access key", 6, MIRROR, {"AWS_SECRET_ACCESS_KEY": "guess"}),
        ("there are no credentials for", 6, MIRROR, {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}),
        ("does not exist at", 4, MIRROR.replace(BUCKET, "sie-models-privat"), {}),
    ],
)
def test_what_goes_wrong_with_minio_is_said_as_the_recipe_says(
    told: str, code: int, command: str, env: Mapping[str, str], recipe, media: Path, minio: tuple[str, Path]
) -> None:
    assert f'| "{told}" | {code} |' in recipe("minio").text
    first, *_ = [block.text for block in recipe("minio").blocks if block.language == "bash"]
    changed = "\n".join(f"export {name}={value}" if value else f"unset {name}" for name, value in env.items())

    ran = at_minio(media, minio).run(f"{first}\n{changed}\n{command}")
    assert (ran.code, told in ran.said) == (code, True), ran.said


@pytest.mark.parametrize(
    ("name", "told", "code", "refusal"),
    [
        ("aws", "is in another region", 5, s3_refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-west-1")),
        ("aws", "the clocks here and there differ", 6, s3_refusal(403, "RequestTimeTooSkewed")),
        ("aws", "answered 403", 6, s3_refusal(403, "AccessDenied")),
        ("aws", "grant `s3:", 6, s3_refusal(403, "AccessDenied")),
        ("ceph", "answered 403", 6, s3_refusal(403, "AccessDenied")),
        ("ceph", "QuotaExceeded", 7, s3_refusal(403, "QuotaExceeded")),
        ("ceph", "is in another region", 5, s3_refusal(400, "AuthorizationHeaderMalformed")),
        ("minio", "answered 413", 5, Answer(413, {}, b"<html>413 Request Entity Too Large</html>")),
    ],
)
def test_what_a_server_refuses_is_said_as_the_recipe_says(
    name: str, told: str, code: int, refusal: Answer, recipe, media: Path
) -> None:
    (row,) = [line for line in recipe(name).text.splitlines() if line.startswith("| ") and f'"{told}' in line]
    assert f"| {code} |" in row
    with rclone.running(media / "server", bucket=BUCKET) as behind, standing_in_front(behind) as (front, endpoint):
        front.refusals, front.methods = [refusal] * 20, ("PUT",)
        ran = Operator(media, env={**KEYS, "AWS_ENDPOINT_URL_S3": endpoint}).run(MIRROR)

    assert (ran.code, told in ran.said) == (code, True), ran.said


def test_ceph(recipe, media: Path) -> None:
    with rclone.running(media / "server", bucket="another") as endpoint:
        swaps = {
            "https://rgw.example.com": endpoint,
            "_ID=KEY\n": f"_ID={rclone.ACCESS_KEY}\n",
            "_KEY=SECRET\n": f"_KEY={rclone.SECRET_KEY}\n",
        }
        ran = Operator(media, swaps).read(recipe("ceph"))

    assert ran.code == 0, ran.said
    assert f"s3://{BUCKET}/weights/: every byte is what was locked" in ran.said
    assert cluster_cache(media)["credentialsSecret"] == "bucket"
    installed(media, recipe("ceph"))


@pytest.mark.parametrize("name", ["aws", "gcs", "minio", "ceph", "dvd", "diode"])
def test_every_code_that_a_recipe_names_is_one_of_the_toolkits(name: str, recipe, blocks) -> None:
    rows = re.findall(r'^\| ".*\| (\d+) \|', recipe(name).section("When something is wrong").text, re.MULTILINE)
    (listed,) = [block.text for block in blocks if block.text.startswith("Exit codes")]

    assert len(rows) >= 4
    assert set(rows) - set(re.findall(r"(\d+) [a-z]", listed)) == set()


DRIVE = {
    "eject": 'n=$(ls shelf | wc -l); [ "$SIDE" = far ] || mv drive "shelf/$(printf %04d "$n").iso"',
    "mount": """set -e
next=$(ls shelf | head -1); mv "shelf/$next" drive
mount=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v mount)
"$mount" -t tmpfs tmpfs "$4"
xorriso -osirrox on -indev stdio:drive -extract / "$4" > /dev/null 2>&1
"$mount" -o remount,ro "$4\"""",
}
"""One drive, and discs on a shelf."""


def at_drive(folder: Path, side: str) -> Operator:
    """Small discs, so that there are some; in a mount namespace, so that nothing stays mounted."""
    (folder / "shelf").mkdir(exist_ok=True)
    swaps = {"--volume-size dvd": "--volume-size 1MiB", "dev=/dev/sr0": "dev=stdio:drive", "/dev/sr0": "drive"}
    within = ("unshare", "--user", "--map-root-user", "--mount")
    return Operator(folder, swaps, {"SIDE": side}, DRIVE, within)


@pytest.fixture
def discs() -> None:
    if shutil.which("xorriso") is None:
        pytest.skip("needs xorriso: `make setup` as root installs it")
    if subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], check=False).returncode:
        pytest.skip("needs user and mount namespaces")


def test_discs_with_one_drive_of_which_one_went_bad(recipe, folder: Path, tmp_path: Path, discs: None) -> None:
    page = recipe("dvd")
    written = at_drive(folder, "near").read(page.section("Write"), answers="\n" * 9)
    assert written.code == 0, written.said
    images = sorted(path.name for path in (folder / "images").iterdir())
    assert images == ["p0001.iso", "v0001.iso", "v0002.iso", "v0003.iso", "v0004.iso"]

    far = tmp_path / "far"
    far.mkdir()
    (folder / "shelf").rename(far / "shelf")
    bad = far / "shelf" / "0002.iso"
    data = bytearray(bad.read_bytes())
    data[600_000:602_048] = bytes(2048)
    bad.write_bytes(data)

    read = at_drive(far, "far").read(page.section("Read"), answers="\n" * len(images))
    assert "v0002.tar: FAILED" in read.said
    assert re.findall(r"ended with (\d+)", read.said) == ["4", "10", "3", "10", "10"]
    again = page.section("One bad disc").blocks
    mended = at_drive(far, "far").run(again[0].text)
    assert mended.code == 0, mended.said
    assert "repaired/v0002.tar made good" in mended.said
    checked = at_drive(far, "far").read(page.section("Check, and go on"))
    assert "airgap-store: every byte is what was locked" in checked.said

    cut = at_drive(folder, "near").run(again[1].text)
    assert cut.code == 0, cut.said
    assert (folder / "again" / "v0002.tar").read_bytes() == (folder / "media" / "v0002.tar").read_bytes()


RECEIVE = """
import json, sys
from pathlib import Path
inbox = Path(sys.argv[1])
inbox.mkdir()
while head := sys.stdin.buffer.readline():
    name, offset, length = json.loads(head)
    with (inbox / name).open("r+b" if (inbox / name).exists() else "w+b") as file:
        file.seek(offset)
        file.write(sys.stdin.buffer.read(length))
"""
PACKET_BYTES = 32 << 10


def send(outbox: Path, inbox: Path, *, lost: Callable[[str, int], bool] = lambda name, number: False) -> None:
    """Over a pipe, which has no way back, to a process without a network."""
    words = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", RECEIVE, str(inbox)]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as receiver:
        assert receiver.stdin is not None
        for path in sorted(outbox.iterdir()):
            data = path.read_bytes()
            for number, start in enumerate(range(0, len(data), PACKET_BYTES)):
                packet = data[start : start + PACKET_BYTES]
                if not lost(path.name, number):
                    receiver.stdin.write(f'["{path.name}", {start}, {len(packet)}]\n'.encode() + packet)


@pytest.fixture
def pipes() -> None:
    if subprocess.run(["unshare", "--user", "--map-root-user", "--net", "true"], check=False).returncode:
        pytest.skip("needs user and network namespaces")


SHORT = {"--volume-size 1GiB": "--volume-size 1MiB"}


def test_a_diode_that_loses_packets(recipe, folder: Path, tmp_path: Path, pipes: None) -> None:
    page = recipe("diode")
    sent = Operator(folder, SHORT).read(page.section("Send"))
    assert sent.code == 0, sent.said
    far = tmp_path / "far"
    far.mkdir()
    holes = {("v0002.tar", 3), ("v0002.tar", 9), ("v0002.tar", 30)}  # the last packet: the file is cut short
    send(folder / "outbox", far / "inbox", lost=lambda name, number: (name, number) in holes)

    received = Operator(far, SHORT).read(page.section("Receive"))
    assert received.code == 0, received.said
    assert re.findall(r"^(v\d+\.tar): FAILED", received.said, re.MULTILINE) == ["v0002.tar"]
    assert re.findall(r"ended with (\d+)", received.said) == ["3"], "of verify; of unpack, nothing"
    assert [path.name for path in (far / "repaired").iterdir()] == ["v0002.tar"]
    assert Operator(far).run("sie-airgap verify airgap-store").code == 0


def test_a_diode_that_loses_more_than_parity_makes_good(recipe, folder: Path, tmp_path: Path, pipes: None) -> None:
    page = recipe("diode")
    assert Operator(folder, SHORT).read(page.section("Send")).code == 0
    far = tmp_path / "far"
    far.mkdir()
    send(
        folder / "outbox",
        far / "inbox",
        lost=lambda name, number: name == "v0001.tar" or (name, number) == ("v0002.tar", 9),
    )

    first, second, *_ = page.section("Receive").blocks
    looked = Operator(far).run(first.text)
    assert "ended with" in looked.said
    assert Operator(far).run(second.text).code != 0
    asked, cut, joined = page.section("Ask for the rest").blocks
    slip = Operator(far).run(asked.text)
    assert slip.said.split() == re.findall(r"--only (\S+)", cut.text)

    shutil.rmtree(folder / "outbox")
    assert Operator(folder, SHORT).run(cut.text).code == 0
    send(folder / "again", far / "inbox-again")
    taken = Operator(far).run(joined.text)
    assert taken.code == 0, taken.said
    assert Operator(far).run("sie-airgap verify airgap-store").code == 0


def with_one_model_more(root: Path) -> None:
    """The next lock of a store, and what it needs."""
    store, files = BlobFolder(root), {"config.json": b"{}", "model.safetensors": seeded(70_000, seed=9)}
    old = read_lock(root / LOCK_NAME)
    models = sorted([*old.models, locked_model("org/more", files)], key=lambda model: model.id)
    for data in files.values():
        store.add(data)
    write_lock(
        root / LOCK_NAME,
        msgspec.structs.replace(old, serial=2, previous=lock_digest(old), models=tuple(models)),
    )


def test_the_next_release_over_a_diode_is_built_on_the_lock_that_was_taken(
    recipe, folder: Path, tmp_path: Path, pipes: None
) -> None:
    page = recipe("diode")
    assert Operator(folder, SHORT).read(page.section("Send")).code == 0
    far, new = tmp_path / "far", tmp_path / "new"
    far.mkdir()
    new.mkdir()
    send(folder / "outbox", far / "inbox")
    assert Operator(far).run("sie-airgap unpack inbox").code == 0
    with_one_model_more(folder / "airgap-store")

    assert Operator(folder, SHORT).read(page.section("The next release")).code == 0
    send(folder / "outbox-2", far / "inbox-2")
    shutil.copytree(far / "inbox-2", new / "inbox-2")
    taken, refused = (Operator(side).run("sie-airgap unpack inbox-2") for side in (far, new))

    assert (taken.code, refused.code) == (0, 4), taken.said + refused.said
    assert "a delta on lock number 1" in refused.said
    assert sum(path.stat().st_size for path in (folder / "outbox-2").glob("v*.tar")) < 150_000
