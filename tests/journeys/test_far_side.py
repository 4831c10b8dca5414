"""What goes wrong on the far side, as an operator meets it: the exit code, and words that say what and where.

One far side for all: a real bucket on its bridge with the real MiniLM and a tiny reranker, and the chart from the
toolkit's own store. The reranker is the lock's first model, so that it is the one that is called.
Each test changes one thing of a rehearsal that would succeed (`test_demo.py` shows that it does).
"""

import ast
import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sie_core.ids import ModelId
from sie_testing import parts, seaweed, tiny_bert
from sie_testing.demo.stage import MODEL
from sie_testing.images import write_images

CHECKOUT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
AIRGAP = str(BIN / "sie-airgap")
RERANKER = ModelId("cross-encoder/ms-marco-MiniLM-L-6-v2")
BUCKET = "s3://sie-models-private"
Object = dict[str, Any]
KEYS = {"AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY}

SERVE_BUCKET = """
import sys
from pathlib import Path
from sie_testing import seaweed
with seaweed.running(Path(sys.argv[1]), ip=sys.argv[2]) as bucket:
    bucket.make_bucket("sie-models-private")
    print(bucket.endpoint, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("far-side")


@pytest.fixture(scope="module")
def store(folder: Path, airgap, hub_of) -> Path:
    """What was carried: the models, the chart and its images."""
    write_images(folder / "images")
    chart = ["--chart", str(CHECKOUT / "charts" / "sie-cluster"), "--helm", str(parts.helm())]
    images = ["--image-source", f"ghcr.io/superlinked=oci:{folder / 'images'}"]
    reranker = tiny_bert.write_cross_encoder(folder / "reranker", positions=512)
    with hub_of(folder / "hub", also={RERANKER: reranker}) as hub:
        airgap("lock", "--model", MODEL, "--model", RERANKER, *chart, *images, cwd=folder, env={"HF_ENDPOINT": hub})
        airgap("snapshot", *images, cwd=folder, env={"HF_ENDPOINT": hub})
    return folder / "airgap-store"


@pytest.fixture(scope="module")
def endpoint(folder: Path, store: Path, far_side) -> Iterator[str]:
    """A bucket on the far side's bridge, with the models under `weights/`."""
    words = far_side.inside([sys.executable, "-c", SERVE_BUCKET, str(folder), "10.77.0.1"])
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address = process.stdout.readline().strip()
        mirror = [AIRGAP, "mirror", "weights", f"{BUCKET}/weights/", "--endpoint", address]
        done = far_side.run(mirror, cwd=folder, env=KEYS)
        assert done.code == 0, done.err
        yield address
        process.stdin.close()


@dataclass(frozen=True)
class Rehearsal:
    """What an operator gives to `rehearse`: values, the bucket's Secret, and whatever else is applied."""

    folder: Path
    values: Object
    secret: Mapping[str, str] | None
    also: tuple[Object, ...] = ()

    def words(self) -> list[str]:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket"}, "stringData": self.secret}
        manifests = [*([secret] if self.secret is not None else []), *self.also]
        (self.folder / "manifests.yaml").write_text(yaml.safe_dump_all(manifests))
        (self.folder / "values.yaml").write_text(yaml.safe_dump(self.values))
        files = ["--values", "values.yaml", "--manifests", "manifests.yaml", "--helm", str(parts.helm())]
        return [AIRGAP, "rehearse", "airgap-store", *files, "--output", "json"]

    def with_bucket(self, **changed: object) -> "Rehearsal":
        """The same with other `clusterCache` values; None takes one away."""
        values = copy.deepcopy(self.values)
        cache = values["workers"]["common"]["clusterCache"] | changed
        values["workers"]["common"]["clusterCache"] = {key: value for key, value in cache.items() if value is not None}
        return replace(self, values=values)


@pytest.fixture(scope="module")
def values(folder: Path, endpoint: str, airgap) -> Object:
    where = ["--bucket", f"{BUCKET}/weights/", "--endpoint", endpoint, "--credentials-secret", "bucket"]
    loaded: Object = yaml.safe_load(airgap("values", *where, cwd=folder))
    return loaded


@pytest.fixture
def right(folder: Path, values: Object) -> Rehearsal:
    return Rehearsal(folder, values, secret=KEYS)


@pytest.fixture
def errors(far_side) -> Callable[[Rehearsal], tuple[int, list[str]]]:
    """The exit code of a rehearsal on the far side, and its errors."""

    def rehearsed(given: Rehearsal) -> tuple[int, list[str]]:
        done = far_side.run(given.words(), cwd=given.folder)
        return done.code, told(done.err)

    return rehearsed


def told(stderr: str) -> list[str]:
    """The errors of `--output json`, each with its hint."""
    events = [json.loads(line) for line in stderr.splitlines()]
    return [f"{event['message']}\n{event.get('hint', '')}" for event in events if event["event"] == "error"]


def deployment(name: str, program: str) -> Object:
    """One more workload that an operator applies beside the chart."""
    container = {"name": name, "image": "registry.example/one-more:1", "command": ["python3", "-c", program]}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"template": template}}


def test_wrong_credentials_are_told_by_the_init_container_and_exit_6(right, errors):
    code, (error,) = errors(replace(right, secret={**KEYS, "AWS_SECRET_ACCESS_KEY": "not-the-key"}))

    assert code == 6
    assert "init container `weights` of Deployment/sie-sie-cluster-worker-l4 reports 403" in error
    assert "not-the-key" not in error


def test_no_credentials_at_all_are_told_and_nobody_is_asked_for_some_and_exit_6(right, errors):
    """A client may look for an identity at an address that every cloud has: that would be an attempt to leave."""
    code, (error,) = errors(right.with_bucket(credentialsSecret=None))

    assert code == 6
    assert "credentials" in error


def test_model_that_is_missing_in_a_bucket_without_a_lock_is_named_and_exit_4(right, errors):
    """The guide's own values pin nothing."""
    code, (error,) = errors(right.with_bucket(url=f"{BUCKET}/another-folder/", lock=None, requireVerified=None))

    assert code == 4
    assert f"`{RERANKER}` is not in {BUCKET}/another-folder/" in error


def test_secret_that_the_chart_names_and_nobody_applies_is_named_and_exit_4(right, errors):
    code, (error,) = errors(replace(right, secret=None))

    assert code == 4
    assert "Secret `bucket` is named by the chart and is not among the manifests" in error
    assert "add it to the file given with `--manifests`" in error


def test_key_that_the_secret_lacks_is_named_with_those_it_has_and_exit_4(right, errors):
    code, (error,) = errors(replace(right, secret={"AWS_ACCESS_KEY_ID": "x", "aws_secret_access_key": "y"}))

    assert code == 4
    assert "has no key `AWS_SECRET_ACCESS_KEY`; it has `AWS_ACCESS_KEY_ID`, `aws_secret_access_key`" in error


def test_bucket_on_loopback_is_refused_by_name_and_exit_2(right, errors):
    code, (error,) = errors(right.with_bucket(endpoint="http://127.0.0.1:9000"))

    assert code == 2
    assert "the bucket is at `http://127.0.0.1:9000`: a pod's loopback is its own" in error


def test_rehearsal_outside_of_a_far_side_starts_nothing_and_exit_10(right):
    done = subprocess.run(right.words(), cwd=right.folder, capture_output=True, text=True, check=False)
    (error,) = told(done.stderr)

    assert done.returncode == 10
    assert "egress: not counted (no bridge of this network namespace has the address 10.77.0.1)" in error
    assert "nothing was started" in error
    assert "sie-airgap far-side -- COMMAND" in error


def test_program_that_tries_to_leave_is_found_though_everything_works_and_exit_11(right, far_side):
    leaving = deployment("curious", "import socket; socket.socket().connect_ex(('203.0.113.9', 443))")
    done = far_side.run(replace(right, also=(leaving,)).words(), cwd=right.folder)
    report, (error,) = json.loads(done.out), told(done.err)

    assert done.code == 11
    assert (report["model"], report["verb"]) == (RERANKER, "score")
    assert {item for item, _ in ast.literal_eval(report["printed"])} == {"item-0", "item-1"}
    assert report["egress_attempts"] == 1
    assert report["namespaces"]["pod curious"] == "1 TCP to tcp 203.0.113.9:443"
    assert "pod curious: 1 TCP to tcp 203.0.113.9:443" in error


def test_what_fails_is_told_after_what_tried_to_leave_and_exit_11(right, errors):
    """It may have failed because it could not leave."""
    needy = deployment("needy", "import socket; socket.getaddrinfo('models.example', 443)")
    elsewhere = right.with_bucket(url=f"{BUCKET}/another-folder/")
    code, (left, failed, _) = errors(replace(elsewhere, also=(needy,)))

    assert code == 11
    assert "pod needy: " in left
    assert "DNS" in left
    assert "init container `weights` of Deployment/sie-sie-cluster-worker-l4 cannot go on" in failed
    assert f"is not in {BUCKET}/another-folder/" in failed
    assert "`sie-airgap mirror weights` puts it there" in failed
