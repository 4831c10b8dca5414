"""The S3 client as we want it: what works on every server, and nothing of what the user has set erased.

Credentials come from the client's own chain: environment, profiles and what they name (roles, programs, SSO), web
identity (IRSA), the container's endpoint. The one that is left out unless it is asked for is 169.254.169.254: inside
the gap a question to it is an attempt to leave, and it takes seconds before it fails.
"""

from functools import cache
from typing import Any

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.configprovider import ConfigChainFactory

STREAMS = 4
_METADATA = "AWS_EC2_METADATA_DISABLED"


def new_session() -> Any:
    """A session of our own: the process may have set up another default one."""
    session = botocore.session.Session()
    session.register_component("data_loader", _api_descriptions())
    chains = ConfigChainFactory(session=session)
    # The client reads AWS_DEFAULT_REGION only; every other SDK, and what IRSA injects, say AWS_REGION.
    region = chains.create_config_chain("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], "region")
    session.get_component("config_store").set_config_provider("region", region)
    asked = chains.create_config_chain(env_var_names=_METADATA).provide()
    if str(asked).lower() != "false":
        session.get_component("credential_provider").remove("iam-role")
    return session


def new_client(session: Any, *, endpoint: str | None, region: str | None, path_style: bool) -> Any:
    """Raises botocore's errors for settings that contradict themselves, and for credentials that cannot be had."""
    its_own = (session.get_scoped_config().get("s3") or {}).get("addressing_style")
    config = Config(
        signature_version="s3v4",
        # Not `auto`: with an endpoint that is not AWS's own the client takes that for `path`.
        s3={"addressing_style": its_own or ("path" if path_style else "virtual")},
        # Older MinIO answers the client's default, a checksum behind the body, with 400.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Waiting is decided where the caller can be told of it; one more attempt covers a closed connection.
        retries={"mode": "standard", "total_max_attempts": 2},
        connect_timeout=5,
        read_timeout=30,
        max_pool_connections=2 * STREAMS + 2,
    )
    region = region or session.get_config_variable("region") or "us-east-1"
    return boto3.session.Session(botocore_session=session).client(
        "s3", endpoint_url=endpoint, region_name=region, config=config
    )


@cache
def _api_descriptions() -> Any:
    """The client's own files, parsed once a process: most of what it costs to open a bucket."""
    return botocore.loaders.create_loader()
