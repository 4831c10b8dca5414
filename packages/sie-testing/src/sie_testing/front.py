"""What stands in front of an object store: passes requests on, may speak TLS, and refuses some as S3 words it."""

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from ssl import SSLContext
from urllib.parse import quote, urlencode, urlsplit

from sie_testing.faults import Fault, answered, due
from sie_testing.web import Answer, Request, serving

_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding"}


@dataclass
class Front:
    """Attributes:
    upstream: `http://HOST:PORT` of the store.
    refusals: what the next requests are answered in its place, first to last.
    methods: which requests are refused; empty is every one.
    faults: what goes wrong with which paths, for as long as it stands here.
    seen: method and path of each request, and who it says it is.
    """

    upstream: str
    refusals: list[Answer] = field(default_factory=list)
    methods: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        self.seen.append((request.method, request.path, request.headers.get("Authorization", "")))
        body = request.body.read()
        if self.refusals and (not self.methods or request.method in self.methods):
            return self.refusals.pop(0)
        met = due(self.faults, method=request.method, path=request.path)
        return answered(lambda: self._passed_on(request, body), met, has_token=True, is_file=True)

    def _passed_on(self, request: Request, body: bytes) -> Answer:
        place = urlsplit(self.upstream)
        query = f"?{urlencode(request.pairs)}" if request.pairs else ""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_ONE_HOP}
        with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)) as behind:
            behind.request(request.method, quote(request.path) + query, body=body, headers=headers)
            answer = behind.getresponse()
            content = answer.read()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in _OF_ONE_HOP}
        return Answer(answer.status, kept, content)


def s3_refusal(status: int, code: str, message: str = "refused", **headers: str) -> Answer:
    """An error as S3 words it; `retry_after="7"` is the header `Retry-After`."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"Content-Type": "application/xml", **named}, text.encode())


@contextmanager
def standing_in_front(upstream: str, *, tls: SSLContext | None = None) -> Iterator[tuple[Front, str]]:
    """The front, and the endpoint to give a client, until the block ends."""
    front = Front(upstream)
    with serving(front.answer, tls=tls) as endpoint:
        yield front, endpoint
