"""nginx before another server, where it is installed: TLS ended, and bodies limited as it does by default (1 MB)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sie_testing.authority import Authority
from sie_testing.programs import free_port, wait_until_listening

_CONFIG = """
{user}daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log error;
events {{ worker_connections 128; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}{tls};
    location / {{ proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Host $http_host; }}
  }}
}}
"""


def nginx_program() -> str | None:
    """Where it is; None when it is not installed."""
    return shutil.which("nginx")


@contextmanager
def serving_nginx(folder: Path, upstream: str, *, authority: Authority | None = None) -> Iterator[str]:
    """Runs it before `upstream` (`http://host:port`) until the block ends; yields its own origin."""
    program = nginx_program()
    if program is None:
        raise FileNotFoundError("`nginx` is not on the PATH; Debian has it as `nginx-light`")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    tls = (
        "" if authority is None else f" ssl; ssl_certificate {authority.server}; ssl_certificate_key {authority.server}"
    )
    user = "user root; " if os.geteuid() == 0 else ""  # else its workers may not write into our folder
    config = folder / "nginx.conf"
    config.write_text(_CONFIG.format(user=user, folder=folder, port=port, tls=tls, upstream=upstream))
    process = subprocess.Popen([program, "-c", str(config), "-e", str(folder / "error.log")])
    try:
        wait_until_listening(port, process)
        yield f"{'http' if authority is None else 'https'}://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
