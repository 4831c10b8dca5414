"""What stands beside the volumes for whoever unpacks them: a runbook, and a script that needs nothing of ours.

`README.txt` names the very files of this archive. `start.sh` needs sh and Python 3.11 or later: it checks the
volumes against `SHA256SUMS`, takes the wheels out of them, makes a virtual environment without a network and
hands over to the `sie-airgap` installed there. Both are the same bytes for the same archive.
"""

from collections.abc import Sequence
from importlib.resources import files

from sie_airgap.deltas.delta import NOTHING, Delta
from sie_airgap.progress import sized
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.lock import Lock

README_NAME = "README.txt"
START_NAME = "start.sh"


def readme(
    lock: Lock, digest: Digest, archive: str, names: Sequence[str], delta: Delta = NOTHING, *, golden: bool = False
) -> str:
    """The runbook, for one archive.

    Args:
        names: of its volumes, and of its parity volumes.
        golden: whether it carries golden answers.
    """
    chart = lock.chart.file if lock.chart is not None else "CHART.tgz"
    parity = [name for name in names if name.startswith("p")]
    volumes = [name for name in names if not name.startswith("p")]
    return f"""{archive}: everything that a cluster without internet needs to serve these models

  lock     {digest}
           (lock number {lock.serial}; have it read to you by whoever packed this: it is the identity of all of it)
  volumes  {_ranged(volumes)}
  parity   {_ranged(parity)}
  models   {_listed([f"{model.id} at {model.revision}, {sized(model.size_bytes)}" for model in lock.models])}
  images   {_listed([image.reference for image in lock.images])}
  charts   {_listed([one.file for one in lock.charts])}
  wheels   {len(lock.wheels)}{_base(delta)}

Nothing here is ever changed or deleted by the steps below. Every step may be run again: it goes on where it stopped.
The volumes may lie on several media, in any order, read-only. Name all of them where MEDIA stands, for example
/media/disc1 /media/disc2. What stands in capitals is yours to fill in.

1. Check the media, with nothing of ours, in the folder or on each disc:

     sha256sum -c --ignore-missing SHA256SUMS

   Is there a sie-airgap here? If not, {volumes[0]} brings it. This needs sh and Python 3.11 to 3.13 with its venv, and
   no network; it installs into ~/.sie-airgap (START_HOME=/elsewhere for another place). Begin with {volumes[0]}:

     sh start.sh --help

   From then on say `sh start.sh` wherever `sie-airgap` stands below, or once in each shell

     . ~/.sie-airgap/current/bin/activate

   Then hold every byte against the lock; with one drive leave this to step 2, which checks each disc that it takes:

     sie-airgap verify MEDIA

   Look at the digest of the lock that it prints: is it the one that you were told? Were you given a root of keys,
   too, pin it once, before step 2, and compare its digest likewise: `sie-airgap trust pin ROOT.dsse`

{_when_damaged(parity, volumes)}
2. Put the content into a store on this side (or leave this out, and say `--from MEDIA` in steps 3 and 4). With one
   drive, run it once for each disc: what was taken is kept.

     sie-airgap unpack MEDIA --store airgap-store

3. Mirror it. Credentials come from the environment (AWS_ACCESS_KEY_ID, …, what `docker login` wrote); leave --endpoint
   out for AWS itself, and say gs://BUCKET/PREFIX/ for Google's:

     sie-airgap mirror weights s3://BUCKET/PREFIX/ --endpoint https://OBJECT-STORE
     sie-airgap mirror images REGISTRY/PATH
     sie-airgap mirror chart ./charts           puts {chart} there; or name oci://REGISTRY/PATH

4. Write the values, make the namespace and its secrets, and install. Leave out --credentials-secret where pods have an
   identity of their own, and --pull-secret where the registry asks nobody for a login:

     sie-airgap values --bucket s3://BUCKET/PREFIX/ --endpoint https://OBJECT-STORE --credentials-secret bucket \\
       --registry REGISTRY/PATH --pull-secret regcred -o values-offline.yaml
     kubectl create namespace sie
     kubectl create secret generic bucket -n sie --from-literal=AWS_ACCESS_KEY_ID=ID \\
       --from-literal=AWS_SECRET_ACCESS_KEY=KEY
     kubectl create secret docker-registry regcred -n sie --docker-server=REGISTRY --docker-username=USER \\
       --docker-password=PASSWORD
{_other_charts(lock)}     helm upgrade --install sie ./charts/{chart} -f values-offline.yaml -n sie

5. Check what was mirrored, every byte of the bucket and every image, and what the cluster answers. Where there is no
   store, `tar -xOf {volumes[0]} airgap.lock > airgap.lock` takes the lock out of a volume:

     sie-airgap verify s3://BUCKET/PREFIX/ --endpoint https://OBJECT-STORE
     sie-airgap verify oci://REGISTRY/PATH --lock airgap-store/airgap.lock
     kubectl -n sie port-forward svc/sie-sie-cluster-gateway 8080:8080 &
     sie-airgap verify http://localhost:8080 --lock airgap-store/airgap.lock
{_golden(golden=golden)}
Exit codes: 0 done, 2 misused, 3 something is not what was locked, 4 something is missing, 5 unreachable,
6 no permission, 7 no space, 8 belongs to another lock, 9 golden answers differ, 10 partly done: run it again.
"""


def _other_charts(lock: Lock) -> str:
    """How the charts beside ours are installed: before it, since it may ask for what they define."""
    others = [chart for chart in lock.charts if chart != lock.chart]
    if not others:
        return ""
    lines = [
        f"     helm upgrade --install {one.name} ./charts/{one.file} -f VALUES -n {one.name} --create-namespace\n"
        for one in others
    ]
    return f"""
   The other charts come first, each with the values file that it was locked with, which is not in here. Their images
   are asked for under their own names: give the nodes rules that lead to REGISTRY/PATH (`--format idms` for OpenShift,
   `registries.conf` for CRI-O), or name it in those values.

     sie-airgap mirror images REGISTRY/PATH --full-names
     sie-airgap mirror rules REGISTRY/PATH --format hosts.toml -o certs.d
{"".join(lines)}"""


def _golden(*, golden: bool) -> str:
    asked = "sie-airgap golden compare airgap-store/golden.json --url http://localhost:8080 --gpu l4"
    return f"     {asked}\n" if golden else ""


def _when_damaged(parity: Sequence[str], volumes: Sequence[str]) -> str:
    """What to do about a volume that is lost or damaged."""
    ask = f"""ask for it by its name. These are the names of all that are lost or damaged in a folder:

     sha256sum -c --quiet SHA256SUMS 2> /dev/null

   On the connected side each is cut again alone, the same bytes, with the options that this archive was packed with:

     sie-airgap pack FOLDER --only {volumes[-1]}
"""
    if not parity:
        return f"   Is a volume lost or damaged? The others stay usable; {ask}"
    return f"""   Is a volume lost or damaged? It is made again from {parity[0]} and the others; name all that there is,
   the damaged one too, and afterwards the folder `repaired` beside the other media:

     sie-airgap repair MEDIA -o repaired

   Where too much is lost, {ask}"""


def _ranged(names: Sequence[str]) -> str:
    if len(names) <= 8:
        return ", ".join(names) or "none"
    return f"{names[0]} to {names[-1]}, {len(names)} of them"


def _base(delta: Delta) -> str:
    if delta.base is None:
        return ""
    made = f"{len(delta.recipes)} are made of what is there"
    return f"""
  base     lock number {delta.base.serial} at {delta.base.place}
           ({delta.base.lock})
           THIS IS A DELTA: {len(delta.left_out)} blobs are not in it, since they are there, and {made}.
           Unpack it into the store that has that lock, or mirror it to the bucket that has."""


def _listed(lines: Sequence[str]) -> str:
    return ("\n" + " " * 11).join(lines) if lines else "none"


def start_script() -> str:
    """The same for every archive: what it needs to know stands in the volumes."""
    return files("sie_airgap.archive").joinpath(START_NAME).read_text("utf-8")
