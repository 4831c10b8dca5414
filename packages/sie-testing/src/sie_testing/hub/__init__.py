"""A hub on this machine: folders served through the Hub's HTTP API, for the real clients.

`repository` reads a folder as a repository at one commit; `faults` says what goes wrong on purpose;
`server` answers. `python -m sie_testing.hub` runs it as a process of its own.
"""

from sie_testing.faults import Fault, FaultKind
from sie_testing.hub.repository import DEFAULT_LFS_ABOVE_BYTES, Repository, RepositoryFile, read_repository
from sie_testing.hub.server import Hub, Seen, serving_hub

__all__ = [
    "DEFAULT_LFS_ABOVE_BYTES",
    "Fault",
    "FaultKind",
    "Hub",
    "Repository",
    "RepositoryFile",
    "Seen",
    "read_repository",
    "serving_hub",
]
