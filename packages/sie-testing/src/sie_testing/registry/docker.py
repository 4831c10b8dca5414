"""The real registry of the docker project, where it is installed (Debian's `docker-registry`), on a free port."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sie_testing.authority import Authority
from sie_testing.programs import free_port, wait_until_listening

USER, PASSWORD = "tester", "secret"
_HTPASSWD = f"{USER}:$2b$04$kzIDRkFtFon6LPkrOAu.VOOXusVpzXeJC/woA6lb8kkBIQMkuOIeW\n"


def docker_registry_program() -> str | None:
    """Where it is; None when it is not installed."""
    return shutil.which("docker-registry")


@contextmanager
def serving_docker_registry(
    root: Path, *, with_password: bool = False, authority: Authority | None = None
) -> Iterator[str]:
    """Runs it over `root` until the block ends; yields `http://127.0.0.1:port`. Its log is `root/log`.

    With an authority it is `https://…`, and its certificate is one of that authority's.
    """
    program = docker_registry_program()
    if program is None:
        raise FileNotFoundError("`docker-registry` is not on the PATH; Debian has it as a package of that name")
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (root / "htpasswd").write_text(_HTPASSWD)
    config = root / "config.yml"
    config.write_text(json.dumps(_config(root, port, with_password=with_password, authority=authority)))
    scheme = "http" if authority is None else "https"
    with (root / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
        try:
            wait_until_listening(port, process)
            yield f"{scheme}://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def _config(root: Path, port: int, *, with_password: bool, authority: Authority | None) -> dict[str, object]:
    http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
    if authority is not None:
        http["tls"] = {"certificate": str(authority.server), "key": str(authority.server)}
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(root / "data")}, "delete": {"enabled": True}},
        "http": http,
    }
    if with_password:
        config["auth"] = {"htpasswd": {"realm": "stand-in", "path": str(root / "htpasswd")}}
    return config
