"""What a running worker or gateway says of its models, asked once."""

import msgspec

from sie_airgap.failures import Misused
from sie_core.artifacts.errors import Unreachable
from sie_core.wire.messages import ModelEntry
from sie_sdk import SIEClient
from sie_sdk.client.errors import SIEError

TIMEOUT_S = 30.0


def served_models(url: str, *, timeout_s: float = TIMEOUT_S) -> list[ModelEntry]:
    """Every model of `/v1/models`, loaded or not. `timeout_s`: the longest silence.

    Raises:
        Unreachable: nobody answers at `url`, or somebody who is no worker and no gateway.
        Misused: `url` is none.
    """
    try:
        client = SIEClient(url, timeout_s=timeout_s)
    except ValueError as error:
        raise Misused(f"`{url}`: want `http://HOST:PORT` or `https://HOST`") from error
    hint = "is a worker or a gateway listening there? A registry without TLS is `oci+http://HOST/PATH`"
    with client:
        try:
            return msgspec.convert(client.list_models(), list[ModelEntry])
        except SIEError as error:
            raise Unreachable(f"{url} does not say what it serves: {error}", hint=hint) from error
        except msgspec.ValidationError as error:
            raise Unreachable(f"{url}/v1/models is not what a worker says: {error}", hint=hint) from error
