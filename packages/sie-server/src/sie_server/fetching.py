"""`sie-server weights` and `sie-server models`: the files of models, fetched or looked for, without serving.

`fetch` is the init container of a worker. Inside a cluster it does not give up: what a person must put right
is said, with what to do, and looked at again every minute, so that a pod waits in `Init` instead of
crash-looping. Without a bucket nothing would change by itself, and it ends with the error's exit code.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

from sie_core.artifacts.errors import TransferError, TrustError
from sie_core.catalog.catalog import Catalog
from sie_server.engine.residency import PROBE_S
from sie_server.local_cache import Holds
from sie_server.settings import ServeSettings
from sie_server.sources import Sources, check_offered, parts_of
from sie_server.telling import Told, complain, megabytes


def fetch(settings: ServeSettings, *, sleep: Callable[[float], None] = time.sleep) -> int:
    """The exit code, when all is there.

    Raises:
        SettingsError: the settings cannot be meant.
    """
    sources, catalog = Sources.of(settings), Catalog.shipped()
    check_offered(settings, catalog)
    holds = Holds(settings.cache_folder)  # what was fetched first must not go for what comes after it
    sources.keep(spec for model in settings.models if (spec := catalog.find(model)))
    steps = [partial(_fetch, model, sources, catalog, holds) for model in settings.models]
    steps = steps or [partial(_look, sources)]
    for step in steps:
        code = _until_it_works(step, sources, sleep)
        if code != 0:
            return code
    return 0


def listing(settings: ServeSettings) -> str:
    """The models of the bundle, one a line; the commit is the one that is here, else the one the spec names."""
    catalog, sources = Catalog.shipped(), Sources.of(settings)
    rows = [("MODEL", "OUTPUTS", "COMMIT", "LOCAL CACHE")]
    for model in catalog.models_of(settings.bundle):
        spec = catalog.specs[model]
        here = sources.here(spec)
        commit = here.manifest.revision if here is not None else spec.revision or "-"
        standing = "not there" if here is None else "complete" if here.verified else here.standing
        rows.append((spec.id, ",".join(spec.outputs), commit[:12], standing))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _fetch(model: str, sources: Sources, catalog: Catalog, holds: Holds) -> None:
    spec = catalog.find(model)
    if spec is None:  # the config service may know it; the worker asks for it then
        _say(f"`{model}` is not in the catalog of this version; the worker fetches it once it is told what it is")
        return
    for part in parts_of(spec):
        started_s, told = time.monotonic(), Told(as_json=False)
        snapshot = sources.snapshot(part, told, holds.take)
        manifest = snapshot.manifest
        size, seconds = megabytes(manifest.size_bytes), time.monotonic() - started_s
        came = f"fetched in {seconds:.1f} s" if told.anything else "was there"
        what = f"{size} in {len(manifest.files)} files, commit {manifest.revision}, {snapshot.standing}"
        _say(f"`{part.id}` {came}: {what}")


def _look(sources: Sources) -> None:
    if sources.cluster is None:
        _say("no models to fetch and no bucket to look into")
        return
    there = sources.in_bucket()
    _say(f"{sources.cluster.url} can be read; models in it: {', '.join(there) or 'none'}")


def _until_it_works(action: Callable[[], None], sources: Sources, sleep: Callable[[float], None]) -> int:
    while True:
        try:
            action()
        except (TransferError, TrustError) as error:
            complain(str(error), error.hint)
            if sources.cluster is None:
                return error.exit_code
            # `sie-airgap rehearse` reads this line and its code: in a rehearsal nobody will put anything right.
            _say(f"looking again in {PROBE_S:.0f} s, until somebody has put it right (exit code {error.exit_code})")
            sleep(PROBE_S)
        else:
            return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
