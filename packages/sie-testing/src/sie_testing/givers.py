"""Those who give workloads their credentials: a security token service, a container's agent, a metadata server."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from sie_testing.seaweed import ACCESS_KEY, SECRET_KEY
from sie_testing.web import Answer, Request, json_answer

GOOGLE_TOKEN = "of-the-node"


@dataclass
class Giver:
    """Gives the right keys to who asks for them, as a security token service, a container's agent or a machine does.

    Attributes:
        left_s: for how long the keys are good.
        asked: the path of each question, with what it was asked with.
    """

    left_s: int = 3_600
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def answer(self, request: Request) -> Answer:
        form = request.body.read().decode()
        self.asked.append((request.path, {**request.query, "form": form, **dict(request.headers.items())}))
        until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.left_s)).isoformat()
        if request.path.endswith("/api/token"):
            return Answer(200, {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, b"session")
        if (request.method, request.path) == ("GET", "/") or request.path.startswith("/computeMetadata/"):
            return self._google(request.path)
        if request.path.endswith("/security-credentials/"):
            return Answer(200, {}, b"node-role")
        if "AssumeRoleWithWebIdentity" in form:
            return Answer(200, {"Content-Type": "text/xml"}, _STS.format(until=until).encode())
        keys = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": "", "Expiration": until}
        return json_answer({"Code": "Success", **keys})

    def _google(self, path: str) -> Answer:
        """As the metadata server of a node, or of Workload Identity; whoever asks it looks for this header."""
        who = {"email": "models@project.iam.gserviceaccount.com", "scopes": ["devstorage.read_only"]}
        token = {"access_token": GOOGLE_TOKEN, "expires_in": self.left_s, "token_type": "Bearer"}
        if "/universe/" in path:
            return Answer(404)
        answer = json_answer(token if path.endswith("/token") else who)
        flavour = {"Metadata-Flavor": "Google"}
        return Answer(200, {**answer.headers, **flavour}, b"project" if "/project/" in path else answer.body)


_STS = (
    "<AssumeRoleWithWebIdentityResponse xmlns='https://sts.amazonaws.com/doc/2011-06-15/'>"
    "<AssumeRoleWithWebIdentityResult><Credentials>"
    f"<AccessKeyId>{ACCESS_KEY}</AccessKeyId><SecretAccessKey>{SECRET_KEY}</SecretAccessKey>"
    "<SessionToken></SessionToken><Expiration>{until}</Expiration>"
    "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
)
