"""The guide's first call, of whatever a model gives: as a program for the client pod, and as lines to be typed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

_WAITING = "wait_for_capacity=True, provision_timeout_s=600"


@dataclass(frozen=True)
class GuidesCall:
    """One verb of the SDK, as an operator tries it.

    Attributes:
        verb: of `SIEClient`.
        given: its arguments between the model and the options.
        shown: what is printed of the `result`.
    """

    verb: str
    given: str
    shown: str

    def program(self, model: str, gpu: str, *, url: str) -> str:
        call = f"client.{self.verb}({model!r}, {self.given},\n    gpu={gpu!r}, {_WAITING})"
        return f"from sie_sdk import SIEClient\n\nclient = SIEClient({url!r})\nresult = {call}\nprint({self.shown})\n"

    def lines(self, model: str, gpu: str, *, url: str) -> tuple[str, ...]:
        return (
            "from sie_sdk import SIEClient",
            f"client = SIEClient({url!r})",
            f"result = client.{self.verb}({model!r}, {self.given}, gpu={gpu!r})",
            self.shown,
        )


CALLS: Mapping[str, GuidesCall] = {
    "dense": GuidesCall("encode", "{'text': 'hello world'}", "result['dense'].shape"),
    "sparse": GuidesCall(
        "encode", "{'text': 'hello world'}, output_types=['sparse']", "result['sparse']['indices'].shape"
    ),
    "multivector": GuidesCall(
        "encode", "{'text': 'hello world'}, output_types=['multivector']", "result['multivector'].shape"
    ),
    "score": GuidesCall(
        "score",
        "{'text': 'Which planet is red?'}, [{'text': 'hello world'}, {'text': 'Mars is the red planet.'}]",
        "[(one['item_id'], round(one['score'], 4)) for one in result['scores']]",
    ),
    "json": GuidesCall(
        "extract",
        "{'text': 'Ada Lovelace lived in London.'}, labels=['person', 'city']",
        "[(one['label'], round(one['score'], 4)) for one in result['entities'] + result['classifications']]",
    ),
}
"""By output, as `/v1/models` names them; a model with several is called for the first of these."""


def call_of(outputs: Collection[str]) -> GuidesCall:
    """Of a model that declares these; where nobody says what it has, the guide's own."""
    return next((call for output, call in CALLS.items() if output in outputs), CALLS["dense"])
