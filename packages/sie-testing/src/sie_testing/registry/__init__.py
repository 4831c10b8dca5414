"""An OCI registry on this machine (distribution 1.1): what it keeps, who may, and what it answers.

`storage` keeps blobs and manifests in a folder and checks digests; `access` is passwords and tokens;
`server` answers. `python -m sie_testing.registry` runs it as a process of its own.
"""

from sie_testing.registry.access import Access
from sie_testing.registry.server import Registry, serving_registry

__all__ = ["Access", "Registry", "serving_registry"]
