"""What an S3 client raised, as one of ours: missing, forbidden, full or unreachable, and what to do about it."""

from dataclasses import dataclass

from botocore.exceptions import (
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    CredentialRetrievalError,
    IncompleteReadError,
    InvalidConfigError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
    SSOError,
)

from sie_core.artifacts.errors import NoPermission, NoSpace, NotThere, TransferError, Unreachable
from sie_core.ids import nearest

NO_SUCH_UPLOAD = ("NoSuchUpload", "404")
_FULL = ("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityTooLarge")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired")
_SKEWED = ("RequestTimeTooSkewed", "RequestInTheFuture")
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ProfileNotFound,
    ConfigNotFound,
    ConfigParseError,
    InvalidConfigError,
    SSOError,
)
_WRONG_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")


@dataclass(frozen=True)
class Place:
    """Which bucket, where, and as whom (None: as nobody): what an error must name."""

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
    """What a server said of a request that it refused; `region` and `retry_after_s` where it said so."""

    code: str
    status: int
    message: str
    operation: str
    region: str | None
    retry_after_s: float | None


def code_of(error: ClientError) -> Code:
    said = error.response.get("Error", {})
    about = error.response.get("ResponseMetadata", {})
    headers = about.get("HTTPHeaders", {})
    wait = headers.get("retry-after", "")
    return Code(
        code=str(said.get("Code", "")),
        status=about.get("HTTPStatusCode", 0),
        message=str(said.get("Message", "")),
        operation=error.operation_name,
        region=headers.get("x-amz-bucket-region") or said.get("Region"),
        retry_after_s=float(wait) if wait.isdigit() else None,
    )


def translated(error: Exception, place: Place, permission: str, name: str) -> TransferError:
    """Args: permission: what was needed (`s3:GetObject`); name: of the file, or a prefix, or nothing."""
    where = f"{place.url}{name}"
    if isinstance(error, ClientError):
        return _answered(code_of(error), place, permission, where)
    if isinstance(error, _NO_CREDENTIALS):
        return NoPermission(
            f"there are no credentials for {place.url}: {error}",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a web identity (IRSA)",
        )
    if isinstance(error, ProxyConnectionError):
        return Unreachable(
            f"the proxy on the way to {place.endpoint} does not answer: {error}",
            hint="HTTPS_PROXY and HTTP_PROXY name it; NO_PROXY names hosts that need none",
        )
    if isinstance(error, SSLError):
        missing = "No such file" in str(error)
        names = "names a file that is not there" if missing else "names the file with your own authority's certificate"
        untrusted = Unreachable(f"{place.endpoint} is not trusted: {error}", hint=f"AWS_CA_BUNDLE {names}")
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
        region = f"`{code.region}`" if code.region else "the bucket's region"
        return _permanent(f"{where} is in another region: {said}", f"set AWS_REGION, or --region, to {region}")
    if code.operation.startswith("AssumeRole"):
        return NoPermission(
            f"no credentials were given for {place.url}: {said}",
            hint="the role's trust policy must name this identity, and its token must not have expired",
        )
    if code.status in (401, 403) or code.code in (*_EXPIRED, *_SKEWED):
        identity = place.identity or "nobody (no credentials)"
        return NoPermission(
            f"{place.endpoint} answered {code.status} for {where} as {identity}: {said}",
            hint=_permission_hint(code, permission),
        )
    if code.code in ("NoSuchUpload", "InvalidPart"):  # the next attempt asks which parts are there
        return Unreachable(f"{place.endpoint} has not, or not any more, what was sent of {where}: {said}")
    if code.status == 404:
        return NotThere(f"{where} does not exist: {said}")
    if code.status >= 500 or code.status in (0, 408, 429):
        failed = Unreachable(f"{place.endpoint} answered {code.status} for {where}: {said}")
        failed.retry_after_s = code.retry_after_s
        return failed
    if code.status == 400 and code.code == "400":
        return _without_words(code, f"{place.endpoint} answered 400 for {where}, without a word of S3")
    return _permanent(f"{place.endpoint} answered {code.status} for {where}: {said}", None)


def _without_words(code: Code, message: str) -> TransferError:
    """HEAD has no room for a reason; with another method, the server could not read the request, which passes."""
    if code.operation.startswith("Head"):
        return _permanent(message, "credentials that have expired and a wrong region are the usual causes")
    return Unreachable(message)


def _permission_hint(code: Code, permission: str) -> str:
    if code.code in _SKEWED:
        return "the clocks here and there differ by more than 15 minutes: set this machine's clock"
    if code.code in _EXPIRED:
        return "get new credentials and run the same command again: it goes on from here"
    if code.code == "InvalidAccessKeyId":
        return "the endpoint does not know this access key: is it the key of another server?"
    if code.code == "SignatureDoesNotMatch":
        return "the secret key does not belong to the access key"
    return f"grant `{permission}` on the bucket; to somebody without `s3:ListBucket` a missing file is a 403 too"


def _permanent(message: str, hint: str | None) -> TransferError:
    error = TransferError(message, hint=hint)
    error.transient = False
    return error
