"""A verdict head completed: what a language model that judges is asked, and the words that it answers. Pure.

The snapshots of these models do not say it: it stands in what was published with them, and is chosen by the
architecture where the spec says nothing. Follows the model card of Qwen3-Reranker, and mxbai-rerank 0.1.6
`mxbai_rerank_v2.py`.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct

from sie_core.catalog.derive.snapshot import DEFAULT, SPEC, Reader, read_json
from sie_core.catalog.spec import ScoreHead

SEAM: Final = "{|}"
"""In a template: what stands before it and what stands after it are tokenised apart."""

_QWEN3: Final = ScoreHead(
    head="verdict",
    activation="sigmoid",
    template=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n{|}'
        "<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        "{|}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    yes="yes",
    no="no",
)
_MXBAI_V2: Final = ScoreHead(
    head="verdict",
    activation="identity",
    template=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n{|}instruction: {instruction}\nquery: {query}{|}\n{|}document: {document}{|}\n{|}"
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
        "{|}<|im_end|>\n<|im_start|>assistant\n"
    ),
    yes="1",
    no="0",
)
_PUBLISHED: Final[Mapping[str, ScoreHead]] = {"qwen2": _MXBAI_V2, "qwen3": _QWEN3}
"""By `model_type`."""

_FIELDS: Final = ("template", "yes", "no", "activation")


class _Config(Struct, frozen=True):
    model_type: str


def complete_verdict(head: ScoreHead, read: Reader, where: str) -> tuple[ScoreHead, dict[str, str]]:
    """The head with nothing left open, and each value's origin by name.

    Args:
        where: `config.json` of the transformer.

    Raises:
        ValueError: nothing was published for the architecture, and the spec leaves something open; a template
            without its places, or with one where it cannot be filled or cut.
    """
    kind = read_json(read, where, _Config).model_type
    published = _PUBLISHED.get(kind)
    origins = {name: DEFAULT if getattr(head, name) is None else SPEC for name in _FIELDS}
    if published is None and DEFAULT in origins.values():
        missing = ", ".join(f"`score.{name}`" for name, origin in origins.items() if origin == DEFAULT)
        raise ValueError(f"no verdict is known of `model_type` `{kind}`: say {missing} in the spec")
    said = {name: getattr(head, name) or getattr(published, name) for name in _FIELDS}
    complete = msgspec.structs.replace(head, **said)
    _check(complete.template or "")
    return complete, origins


def _check(template: str) -> None:
    for place in ("{query}", "{document}"):
        if template.count(place) != 1:
            raise ValueError(f"`score.template` has `{place}` {template.count(place)} times: want it once")
    for line in template.splitlines():
        if "{instruction}" in line and ("{query}" in line or "{document}" in line):
            raise ValueError(
                f"`score.template` has `{{instruction}}` beside another place: {line!r}. Want it on a line of its own, "
                "which is left out where there is none"
            )
    part = next(part for part in template.split(SEAM) if "{document}" in part)
    if not part.endswith("{document}"):
        raise ValueError(
            "`score.template` has text after `{document}` that would be cut with it: "
            f"want `{SEAM}` there, after which the rest is tokenised apart"
        )
