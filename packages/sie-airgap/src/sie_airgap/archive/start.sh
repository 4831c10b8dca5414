#!/bin/sh
# Checks the volumes beside this script, installs the toolkit that they carry, and runs it:
#   sh start.sh [--help | verify | unpack | …]
# Needs sh and Python 3.11 or later, no network; writes nothing here. START_HOME says where the environment goes
# (~/.sie-airgap; `current` in it is the last one), PYTHON which Python makes it. Ends as sie-airgap does: 3 damaged, 4 missing, 7 no space.
set -eu
case $0 in
  */*) here=$(CDPATH= cd -- "${0%/*}/" && pwd) ;;
  *) here=$(pwd) ;;
esac
home=${START_HOME:-${HOME:-.}/.sie-airgap}
python=${PYTHON:-python3}
if ! command -v "$python" > /dev/null 2>&1; then
  printf 'error: there is no `%s` here; Python 3.11 or later is needed\n\n' "$python" >&2
  printf 'hint: install it, or name it: PYTHON=/usr/local/bin/python3.12 sh start.sh\n' >&2
  exit 4
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  printf 'error: `%s` is too old; Python 3.11 or later is needed\n  have  %s\n\n' "$python" "$("$python" -V 2>&1)" >&2
  printf 'hint: name a later one: PYTHON=python3.12 sh start.sh\n' >&2
  exit 4
fi
environment=$("$python" - "$here" "$home" <<'PY'
import hashlib, json, os, re, shutil, subprocess, sys, tarfile, venv
from pathlib import Path

here, home = Path(sys.argv[1]), Path(sys.argv[2])
INTEGRITY, MISSING = 3, 4


def fail(code, message, hint=None):
    print(f"error: {message}" + (f"\n\nhint: {hint}" if hint else ""), file=sys.stderr)
    sys.exit(code)


def say(text):
    print(f"start.sh: {text}", file=sys.stderr)


def index_of(path):
    try:
        with tarfile.open(path) as tar:
            first = tar.next()
            if first is None or first.name != "VOLUME.json" or first.size > 1 << 28:
                raise ValueError("VOLUME.json is not its first member")
            index = json.load(tar.extractfile(first))
            return index["lock"], index["members"]
    except (tarfile.TarError, ValueError, KeyError, TypeError, OSError) as error:
        fail(INTEGRITY, f"{path} cannot be read: {error}", f"carry {path.name} again, or take it out of this folder")


def digest(path):
    running = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            running.update(chunk)
    return running.hexdigest()


volumes = sorted(here.glob("v[0-9][0-9][0-9][0-9].tar"))
if not volumes:
    fail(MISSING, f"no volume lies beside start.sh in {here}", "run it where v0001.tar is: the wheels are on that")
indexes = {path: index_of(path) for path in volumes}
locks = sorted({lock for lock, _ in indexes.values()})
if len(locks) > 1 or not re.fullmatch("sha256:[0-9a-f]{64}", locks[0]):
    fail(INTEGRITY, f"the volumes in {here} are of several archives: {', '.join(map(str, locks))}")
(lock_digest,) = locks
environment = home.absolute() / lock_digest.removeprefix("sha256:")[:16]
done = environment / "installed"


def name_current():
    """`current` is the one that was used last."""
    link = home.absolute() / "current"
    try:
        if not link.is_symlink() or os.readlink(link) != environment.name:
            link.unlink(missing_ok=True)
            link.symlink_to(environment.name)
    except OSError as error:
        say(f"{link}: {error.strerror}")


print(environment)
if done.exists():
    name_current()
    sys.exit(0)

say(f"lock {lock_digest}; is that what you were told?")
sums_file = here / "SHA256SUMS"
if not sums_file.exists():
    fail(MISSING, f"{sums_file} is not there", "carry it again, it stands beside the volumes")
sums = dict(line.split("  ", 1)[::-1] for line in sums_file.read_text().splitlines() if "  " in line)
for path in volumes:
    say(f"checking {path.name}")
    want, have = sums.get(path.name), digest(path)
    if want != have:
        hint = f"carry {path.name} again; or leave it out of this folder, and `sie-airgap repair` may make it good"
        fail(INTEGRITY, f"{path} is damaged\n  want  sha256:{want}\n  have  sha256:{have}", hint)


def member(name, want):
    for path, (_, members) in indexes.items():
        for one in members:
            if one["name"] == name:
                with path.open("rb") as file:
                    file.seek(one["offset"])
                    data = file.read(one["size_bytes"])
                have = "sha256:" + hashlib.sha256(data).hexdigest()
                if have != want:
                    fail(INTEGRITY, f"{name} on {path} is not what was locked\n  want  {want}\n  have  {have}")
                return data
    fail(MISSING, f"{name} is on a volume that is not in {here}", "the wheels are on the first volumes")


lock = json.loads(member("airgap.lock", lock_digest))
if not lock["wheels"]:
    fail(MISSING, "no wheels are in this archive", "`sie-airgap lock --wheels FOLDER` on the connected side")
try:
    shutil.rmtree(environment, ignore_errors=True)  # what an interrupted run left
    wheels = environment / "wheels"
    wheels.mkdir(parents=True)
    for wheel in lock["wheels"]:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl", wheel["file"]):
            fail(INTEGRITY, f"{wheel['file']!r} is not the name of a wheel")
        data = member("blobs/sha256/" + wheel["digest"].removeprefix("sha256:"), wheel["digest"])
        (wheels / wheel["file"]).write_bytes(data)
except OSError as error:
    fail(7 if error.errno == 28 else 6, f"{environment}: {error.strerror}", "START_HOME=/elsewhere sh start.sh")
say(f"installing {len(lock['wheels'])} wheels into {environment}")
try:
    venv.create(environment, with_pip=True)
except (ImportError, OSError, subprocess.CalledProcessError) as error:
    fail(MISSING, f"{sys.executable} makes no virtual environments: {error}", "install python3-venv")
pip = [str(environment / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
pip += ["--no-index", "--find-links", str(wheels), "sie-airgap[s3,gcs]"]
if subprocess.run(pip, stdout=sys.stderr, env={**os.environ, "PIP_CONFIG_FILE": os.devnull}).returncode:
    fail(MISSING, f"pip cannot install from {wheels}", f"are there wheels for Python {sys.version.split()[0]}? PYTHON=…")
shutil.rmtree(wheels)  # they are on the volumes, and as long as what was installed
done.touch()
name_current()
PY
)
exec "$environment/bin/sie-airgap" "$@"
