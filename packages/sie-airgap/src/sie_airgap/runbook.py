"""What stands beside the volumes for whoever unpacks them: a runbook, and a script that needs nothing of ours.

`README.txt` names the very files of this archive. `start.sh` needs sh and Python 3.11 or later: it checks the
volumes against `SHA256SUMS`, takes the wheels out of them, makes a virtual environment without a network and
hands over to the `sie-airgap` installed there. Both are the same bytes for the same archive.
"""

from collections.abc import Sequence
from importlib.resources import files

from sie_airgap.progress import sized
from sie_core.artifacts.digest import Digest
from sie_core.artifacts.lock import Lock

README_NAME = "README.txt"
START_NAME = "start.sh"


def readme(lock: Lock, digest: Digest, archive: str, volumes: Sequence[str]) -> str:
    """The runbook, for one archive."""
    chart = lock.charts[0].file if lock.charts else "CHART.tgz"
    return f"""{archive}: everything that a cluster without internet needs to serve these models

  lock     {digest}
           (lock number {lock.serial}; read it aloud to whoever packed this: it is the identity of all of it)
  volumes  {", ".join(volumes)}
  models   {_listed([f"{model.id} at {model.revision}, {sized(model.size_bytes)}" for model in lock.models])}
  images   {_listed([image.reference for image in lock.images])}
  charts   {_listed([one.file for one in lock.charts])}
  wheels   {len(lock.wheels)}

Nothing here is ever changed or deleted by the steps below; every step may be run again and goes on where it
stopped. The volumes may lie on several media, in any order; name all of them where MEDIA stands.

1. Check the media. Either of:

     sha256sum -c SHA256SUMS
     sie-airgap verify MEDIA

   The second names the file that a damaged byte belongs to. If there is no sie-airgap here yet:

     sh start.sh --help        makes a virtual environment from the wheels inside; then
     sh start.sh verify MEDIA  and so on with every command below

2. Put the content into a store on this side (or leave this out and say `--from MEDIA` below):

     sie-airgap unpack MEDIA --store airgap-store

3. Mirror it. Credentials come from the environment (AWS_ACCESS_KEY_ID, …, a Docker configuration):

     sie-airgap mirror weights s3://BUCKET/PREFIX/ --endpoint https://OBJECT-STORE
     sie-airgap mirror images REGISTRY/PATH
     sie-airgap mirror chart  oci://REGISTRY/PATH      (or a folder)

4. Write the values, and install:

     sie-airgap values --bucket s3://BUCKET/PREFIX/ --registry REGISTRY/PATH > values-offline.yaml
     helm upgrade --install sie ./{chart} -f values-offline.yaml -n sie --create-namespace

5. Check what was mirrored, byte by byte:

     sie-airgap verify s3://BUCKET/PREFIX/

Exit codes: 0 done, 2 misused, 3 something is not what was locked, 4 something is missing, 5 unreachable,
6 no permission, 7 no space, 8 belongs to another lock, 9 golden answers differ, 10 partly done: run it again.
"""


def _listed(lines: Sequence[str]) -> str:
    return ("\n" + " " * 11).join(lines) if lines else "none"


def start_script() -> str:
    """The same for every archive: what it needs to know stands in the volumes."""
    return files("sie_airgap").joinpath(START_NAME).read_text("utf-8")
