"""What an S3 client raised, as one of ours: missing, forbidden, full or unreachable, and what to do about it."""

from dataclasses import dataclass

from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)

from sie_core.artifacts.errors import NoPermission, NoSpace, NotThere, TransferError, Unreachable
from sie_core.ids import nearest

NO_SUCH_UPLOAD = ("NoSuchUpload", "404")
_FULL = ("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityTooLarge")
_WRONG_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")


@dataclass(frozen=True)
class Place:
    """Which bucket, where, and as whom: what an error must name."""

    url: str
    bucket: str
    endpoint: str
    identity: str | None

    def no_bucket(self, known: list[str]) -> NotThere:
        near = nearest(self.bucket, known, most=1)
        there = f"there is `{near[0]}`; " if near else ""
        return NotThere(
            f"the bucket `{self.bucket}` does not exist at {self.endpoint}",
            hint=f"{there}check the bucket's name in `{self.url}` and the endpoint",
        )


@dataclass(frozen=True)
class Code:
    code: str
    status: int
    message: str


def code_of(error: ClientError) -> Code:
    said = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return Code(code=str(said.get("Code", "")), status=status, message=str(said.get("Message", "")))


def translated(error: Exception, place: Place, permission: str, name: str) -> TransferError:
    """Args: permission: what was needed (`s3:GetObject`); name: of the file, or a prefix, or nothing."""
    where = f"{place.url}{name}"
    if isinstance(error, ClientError):
        return _answered(code_of(error), place, permission, where)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return NoPermission(
            f"there are no credentials for {place.url}: {error}",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a web identity (IRSA)",
        )
    if isinstance(error, SSLError):
        untrusted = Unreachable(
            f"{place.endpoint} is not trusted: {error}", hint="AWS_CA_BUNDLE names the file with your own CA"
        )
        untrusted.transient = False
        return untrusted
    if isinstance(error, IncompleteReadError):
        return Unreachable(f"{where} came short: {error}")
    return Unreachable(
        f"{place.endpoint} does not answer for {where}: {error}",
        hint="check the endpoint (AWS_ENDPOINT_URL_S3), its name in the DNS, and that the network policy allows it",
    )


def _answered(code: Code, place: Place, permission: str, where: str) -> TransferError:
    said = ": ".join(part for part in (code.code, code.message) if part)
    if code.code == "NoSuchBucket":
        return place.no_bucket([])
    if code.code in _FULL or code.status == 507:
        return NoSpace(f"{where} does not fit: {said}")
    if code.code in _WRONG_REGION or code.status == 301:
        return _permanent(f"{where} is in another region: {said}", "set AWS_REGION to the bucket's region")
    if code.status in (401, 403):
        identity = f"`{place.identity}`" if place.identity else "nobody (no credentials)"
        return NoPermission(
            f"{place.endpoint} answered {code.status} for {where} as {identity}: {said}",
            hint=_permission_hint(code, permission),
        )
    if code.status == 404:
        return NotThere(f"{where} does not exist: {said}")
    if code.status >= 500 or code.status in (0, 408, 429):
        return Unreachable(f"{place.endpoint} answered {code.status} for {where}: {said}")
    return _permanent(f"{place.endpoint} answered {code.status} for {where}: {said}", None)


def _permission_hint(code: Code, permission: str) -> str:
    if code.code == "RequestTimeTooSkewed":
        return "the clocks here and there differ by more than 15 minutes"
    if code.code == "InvalidAccessKeyId":
        return "the endpoint does not know this access key: is it the key of another server?"
    if code.code == "SignatureDoesNotMatch":
        return "the secret key does not belong to the access key"
    return f"grant `{permission}` on the bucket; to somebody without `s3:ListBucket` a missing file is a 403 too"


def _permanent(message: str, hint: str | None) -> TransferError:
    error = TransferError(message, hint=hint)
    error.transient = False
    return error
