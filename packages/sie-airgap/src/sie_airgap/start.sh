#!/bin/sh
# Checks the volumes beside this script, installs the toolkit that they carry, and runs it:
#   sh start.sh [--help | verify | unpack | …]
# Needs sh and Python 3.11 or later, no network. START_HOME says where the environment goes (~/.sie-airgap).
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
home=${START_HOME:-$HOME/.sie-airgap}
python=${PYTHON:-python3}
"$python" - "$here" "$home" <<'PY'
import hashlib, json, os, subprocess, sys, tarfile, venv
from pathlib import Path

if sys.version_info < (3, 11):
    have = sys.version.split()[0]
    sys.exit(f"error: Python {have} is here, 3.11 or later is needed\n\nhint: PYTHON=python3.12 sh start.sh")
here, home = Path(sys.argv[1]), Path(sys.argv[2])
volumes = sorted(here.glob("v[0-9][0-9][0-9][0-9].tar"))
if not volumes:
    sys.exit(f"error: no volume beside start.sh in {here}")


def digest(path):
    running = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            running.update(chunk)
    return running.hexdigest()


indexes = {}
for path in volumes:
    with tarfile.open(path) as tar:
        first = tar.next()
        indexes[path] = json.load(tar.extractfile(first))
lock_digest = next(iter(indexes.values()))["lock"]
environment = home / lock_digest.removeprefix("sha256:")[:16]
done = environment / "installed"
if done.exists():
    sys.exit(0)

sums = dict(reversed(line.split("  ", 1)) for line in (here / "SHA256SUMS").read_text().splitlines())
for path in volumes:
    print(f"start.sh: checking {path.name}", file=sys.stderr)
    want, have = sums.get(path.name), digest(path)
    if want != have:
        sys.exit(f"error: {path} is damaged\n  want  sha256:{want}\n  have  sha256:{have}")


def member(name):
    for path, index in indexes.items():
        for one in index["members"]:
            if one["name"] == name:
                with path.open("rb") as file:
                    file.seek(one["offset"])
                    return file.read(one["size_bytes"])
    sys.exit(f"error: {name} is on a volume that is not in {here}\n\nhint: the wheels are on the first volume")


lock_bytes = member("airgap.lock")
if "sha256:" + hashlib.sha256(lock_bytes).hexdigest() != lock_digest:
    sys.exit(f"error: airgap.lock is not {lock_digest}")
lock = json.loads(lock_bytes)
if not lock["wheels"]:
    sys.exit("error: no wheels are in this archive\n\nhint: `sie-airgap lock --wheels FOLDER` on the connected side")
wheels = environment / "wheels"
wheels.mkdir(parents=True, exist_ok=True)
for wheel in lock["wheels"]:
    data = member("blobs/sha256/" + wheel["digest"].removeprefix("sha256:"))
    if "sha256:" + hashlib.sha256(data).hexdigest() != wheel["digest"]:
        sys.exit(f"error: {wheel['file']} is not {wheel['digest']}")
    (wheels / wheel["file"]).write_bytes(data)
print(f"start.sh: installing {len(lock['wheels'])} wheels into {environment}", file=sys.stderr)
try:
    venv.create(environment, with_pip=True)
except (ImportError, subprocess.CalledProcessError) as error:
    sys.exit(f"error: {sys.executable} makes no virtual environments: {error}\n\nhint: install python3-venv")
pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
subprocess.run([*pip, "--no-index", "--find-links", wheels, "sie-airgap[s3,gcs]"], check=True, stdout=sys.stderr)
done.touch()
PY
first=$(ls "$here"/v[0-9][0-9][0-9][0-9].tar | head -n 1)
read_lock='import json, sys, tarfile
tar = tarfile.open(sys.argv[1])
print(json.load(tar.extractfile(tar.next()))["lock"].removeprefix("sha256:")[:16])'
exec "$home/$("$python" -c "$read_lock" "$first")/bin/sie-airgap" "$@"
