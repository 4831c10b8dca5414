"""Which heads and tasks a completed spec asks for."""

from collections.abc import Callable, Mapping
from pathlib import Path

from sie_core.catalog.derive import Derived
from sie_core.catalog.spec import DenseHead, MultivectorHead, SparseHead
from sie_core.wire.messages import OutputType
from sie_server.models.calls import Task, Wanted
from sie_server.models.checkpoint import Checkpoint
from sie_server.models.choosing_vectors import marks_of, query_weights_of, vector_heads
from sie_server.models.heads.classify import read_classify
from sie_server.models.heads.entailment import read_entailment
from sie_server.models.heads.gliclass import Gliclass, read_gliclass
from sie_server.models.heads.head import Head
from sie_server.models.heads.spans import Spans, read_spans
from sie_server.models.heads.verdict import read_verdict
from sie_server.models.prompts import Prompts
from sie_server.models.tasks.encode import EncodeTexts
from sie_server.models.tasks.entailment import ExtractEntailed
from sie_server.models.tasks.labels import extract_labels
from sie_server.models.tasks.muvera import EncodeMuvera
from sie_server.models.tasks.pairs import ScorePairs
from sie_server.models.tasks.spans import ExtractSpans
from sie_server.models.tasks.task import Task as TaskOf
from sie_server.models.tasks.vectors import ScoreVectors
from sie_server.models.tasks.verdict import score_verdicts
from sie_server.models.tokenizing import TextTokenizer


def heads_of(
    derived: Derived, config: bytes, checkpoint: Checkpoint, tokenizer: Callable[[], TextTokenizer]
) -> dict[Wanted, Head]:
    """By what is read off a pass; `config` is the transformer's `config.json`."""
    heads = vector_heads(derived, config, checkpoint, tokenizer)
    if derived.score is not None and derived.score.head == "classify":
        heads["logits"] = read_classify(config)
    if derived.score is not None and derived.score.head == "verdict":
        yes, no = (tokenizer().token_id(word or "") for word in (derived.score.yes, derived.score.no))
        heads["logits"] = read_verdict(config, yes=yes, no=no)
    if derived.extract is not None and derived.extract.head == "labels":
        heads["logits"] = read_gliclass(config, lambda written: tokenizer().token_id(written))
    if derived.extract is not None and derived.extract.head == "entailment":
        heads["logits"] = read_entailment(config)
    if derived.extract is not None and derived.extract.head == "spans":
        heads["spans"] = read_spans(config, lambda written: tokenizer().token_id(written))
    return heads


def dims_of(derived: Derived) -> dict[OutputType, int]:
    heads: dict[OutputType, DenseHead | SparseHead | MultivectorHead | None] = {
        "dense": derived.dense,
        "sparse": derived.sparse,
        "multivector": derived.multivector,
    }
    return {name: head.dim for name, head in heads.items() if head is not None and head.dim is not None}


def prompts_of(derived: Derived) -> dict[str | None, Prompts]:
    """By variant; None is the model as it is, and a variant has what it says differently."""
    plain = Prompts(derived.query, derived.document, derived.given.default_instruction)
    variants: dict[str | None, Prompts] = {
        name: Prompts(
            plain.query if variant.query is None else variant.query,
            plain.document if variant.document is None else variant.document,
            plain.default_instruction if variant.default_instruction is None else variant.default_instruction,
        )
        for name, variant in derived.given.variants.items()
    }
    return {None: plain, **variants}


def tasks_of(
    derived: Derived, folder: Path, tokenizer: TextTokenizer, heads: Mapping[Wanted, Head]
) -> dict[Task, TaskOf]:
    """What the model does; `folder` is the snapshot's."""
    spec = derived.given
    tasks: dict[Task, TaskOf] = {}
    prompts = prompts_of(derived)
    if dims := dims_of(derived):
        normalize = derived.dense is not None and bool(derived.dense.normalize)
        tasks["encode"] = encode = EncodeTexts(
            spec.id,
            dims,
            tokenizer,
            prompts,
            normalize,
            marks_of(derived.multivector, tokenizer),
            query_weights=query_weights_of(derived, folder, tokenizer),
            is_pooled="dense" in heads,
            prompt_tokens=None if derived.pools_prompt else tokenizer.prompt_tokens,
        )
        if derived.multivector is not None and derived.multivector.dim is not None:
            tasks["encode"] = EncodeMuvera(encode, derived.multivector.dim)
        if derived.score is not None and derived.score.head == "vectors":
            tasks["score"] = ScoreVectors(encode)
    if derived.score is not None and derived.score.head == "classify" and derived.score.activation is not None:
        tasks["score"] = ScorePairs(spec.id, tokenizer, prompts, derived.score.activation)
    if derived.score is not None and derived.score.head == "verdict":
        tasks["score"] = score_verdicts(derived, tokenizer, prompts)
    extract = derived.extract
    if extract is not None and extract.head == "entailment" and extract.hypothesis is not None:
        tasks["extract"] = ExtractEntailed(
            spec.id, tokenizer, derived.max_tokens, extract.hypothesis, bool(extract.multi_label)
        )
    if isinstance(spans := heads.get("spans"), Spans) and extract is not None and extract.threshold is not None:
        multi_label, merge = bool(extract.multi_label), bool(extract.merge_adjacent)
        tasks["extract"] = ExtractSpans(spec.id, tokenizer, spans, extract.threshold, multi_label, merge)
    if isinstance(head := heads.get("logits"), Gliclass):
        tasks["extract"] = extract_labels(derived, tokenizer, head)
    return tasks
