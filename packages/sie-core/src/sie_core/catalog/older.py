"""Model files of SIE v0.3.1, read as specs of ours. Pure.

Such a file names a Python class (`adapter_path`) and options for it. Here the class becomes the heads that it
stood for, its options what they mean to those heads, and its profiles variants. What only told v0.3.1 how to run
a model (precision, batch sizes, attention kernels) has no meaning here and is left out; what we cannot do is
refused by name.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from sie_core.catalog.spec import (
    DenseHead,
    ExtractHead,
    Lora,
    ModelSpec,
    MultivectorHead,
    ScoreHead,
    Source,
    SparseHead,
    Variant,
)
from sie_core.ids import ModelId, Revision

_DENSE: Final = (
    "bert_flash",
    "clip",
    "modernbert_flash",
    "nomic_flash",
    "pytorch_embedding",
    "qwen2_flash",
    "rope_flash",
    "sentence_transformer",
    "sglang",
    "siglip",
    "xlm_roberta_flash",
)
_SPARSE: Final = ("gte_sparse_flash", "splade_flash")
_MULTIVECTOR: Final = ("colbert", "colbert_modernbert_flash", "colbert_rotary_flash")
_BGE_M3: Final = ("bge_m3", "bge_m3_flag", "bge_m3_flash")
_CLASSIFY: Final = (
    "bert_flash_cross_encoder",
    "cross_encoder",
    "jina_flash_cross_encoder",
    "modernbert_flash_cross_encoder",
)
_VERDICT: Final = ("qwen2_flash_cross_encoder",)
_SPANS: Final = ("gliner", "gliner_bi")
_ENTAILMENT: Final = ("nli_classification", "nli_classification_flash")
_LABELS: Final = ("gliclass",)
_KNOWN: Final = (*_DENSE, *_SPARSE, *_MULTIVECTOR, *_BGE_M3, *_CLASSIFY, *_VERDICT, *_SPANS, *_ENTAILMENT, *_LABELS)

_SHAPING: Final = ("query_template", "doc_template", "default_instruction", "instruction", "lora_id", "output_types")
_OF_THE_HEAD: Final = ("pooling", "normalize", "hypothesis_template", "multi_label", "threshold")
_POOLINGS: Final[Mapping[str, Literal["cls", "mean", "last"]]] = {
    "cls": "cls",
    "mean": "mean",
    "last": "last",
    "last_token": "last",
}


class _AdapterOptions(Struct, frozen=True, forbid_unknown_fields=True):
    loadtime: dict[str, Any] = {}
    runtime: dict[str, Any] = {}


class _Profile(Struct, frozen=True, forbid_unknown_fields=True):
    extends: str | None = None
    adapter_path: str | None = None
    max_batch_tokens: int | None = None
    compute_precision: str | None = None
    adapter_options: _AdapterOptions = _AdapterOptions()
    adaptive_batching: dict[str, Any] | None = None


class _Dims(Struct, frozen=True, forbid_unknown_fields=True):
    dim: int | None = None


class _EncodeTask(Struct, frozen=True, forbid_unknown_fields=True):
    dense: _Dims | None = None
    sparse: _Dims | None = None
    multivector: _Dims | None = None


class _Tasks(Struct, frozen=True, forbid_unknown_fields=True):
    encode: _EncodeTask | None = None
    score: dict[str, Any] | None = None
    extract: dict[str, Any] | None = None


class _Inputs(Struct, frozen=True, forbid_unknown_fields=True):
    text: bool = True
    image: bool = False
    audio: bool = False
    video: bool = False
    document: bool = False


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    sie_id: str
    profiles: dict[str, _Profile]
    hf_id: str | None = None
    hf_revision: str | None = None
    weights_path: str | None = None
    package_backed: bool = False
    inputs: _Inputs = _Inputs()
    tasks: _Tasks = _Tasks()
    max_sequence_length: int | None = None


def is_older(loaded: Mapping[str, Any]) -> bool:
    """Whether a mapping is such a file: ours has `id`."""
    return "sie_id" in loaded


def read_older(loaded: Mapping[str, Any]) -> ModelSpec:
    """The spec that such a file means.

    Raises:
        ValueError: a key that v0.3.1 did not have either, or something that we do not do.
    """
    file = msgspec.convert(loaded, _File)
    for key in ("weights_path", "package_backed"):
        if getattr(file, key):
            raise ValueError(f"`{key}` is `{getattr(file, key)}`: want the weights in a hub repository, `hf_id`")
    if "default" not in file.profiles:
        raise ValueError(f"`profiles` has no `default`: it has {', '.join(f'`{name}`' for name in file.profiles)}")
    default = file.profiles["default"]
    module = _module(default)
    return ModelSpec(
        id=ModelId(file.sie_id),
        source=Source(ModelId(file.hf_id or file.sie_id), Revision(file.hf_revision) if file.hf_revision else None),
        max_tokens=file.max_sequence_length,
        inputs=_inputs(file.inputs),
        query=default.adapter_options.runtime.get("query_template"),
        document=default.adapter_options.runtime.get("doc_template"),
        default_instruction=_instruction({**default.adapter_options.loadtime, **default.adapter_options.runtime}),
        causal=default.adapter_options.loadtime.get("causal"),
        variants={name: _variant(file, name) for name in file.profiles if name != "default"},
        **_heads(module, file.tasks, default.adapter_options),
    )


def _module(profile: _Profile) -> str:
    path = profile.adapter_path or ""
    module, _, kind = path.partition(":")
    if not kind or module.endswith(".py") or "/" in module:
        raise ValueError(f"`adapter_path` is `{path}`: a spec names no code of its own")
    name = module.rsplit(".", 1)[-1]
    if name not in _KNOWN:
        raise ValueError(f"`adapter_path` is `{path}`: there is no head for it; known are {', '.join(_KNOWN)}")
    return name


def _inputs(said: _Inputs) -> tuple[Literal["text", "image"], ...]:
    for kind in ("audio", "video", "document"):
        if getattr(said, kind):
            raise ValueError(f"`inputs.{kind}` is true: models here take text and image")
    return (*(("text",) if said.text else ()), *(("image",) if said.image else ()))


def _instruction(options: Mapping[str, Any]) -> str | None:
    said = options.get("default_instruction", options.get("instruction"))
    return None if said is None else str(said)


def _heads(module: str, tasks: _Tasks, options: _AdapterOptions) -> dict[str, Any]:
    encode = tasks.encode or _EncodeTask()
    load, run = options.loadtime, options.runtime
    heads: dict[str, Callable[[], object]] = {}
    if encode.dense is not None:
        heads["dense"] = lambda: _dense(encode.dense, load, run)
    if encode.sparse is not None:
        heads["sparse"] = lambda: _sparse(module, encode.sparse)
    if encode.multivector is not None:
        heads["multivector"] = lambda: _multivector(module, encode.multivector, load)
    if tasks.score is not None:
        heads["score"] = lambda: _score(module, load)
    if tasks.extract is not None:
        heads["extract"] = lambda: _extract(module, load, run)
    return {name: make() for name, make in heads.items()}


def _dense(said: _Dims | None, load: Mapping[str, Any], run: Mapping[str, Any]) -> DenseHead:
    pooling = run.get("pooling", load.get("pooling"))
    if pooling is not None and pooling not in _POOLINGS:
        raise ValueError(f"`pooling` is `{pooling}`: known are {', '.join(f'`{one}`' for one in _POOLINGS)}")
    return DenseHead(
        pooling=None if pooling is None else _POOLINGS[pooling],
        normalize=run.get("normalize", load.get("normalize")),
        dim=None if said is None else said.dim,
        projection=load.get("dense_projection_path"),
    )


def _sparse(module: str, said: _Dims | None) -> SparseHead:
    dim = None if said is None else said.dim
    if module in _BGE_M3:
        return SparseHead("lexical", weights="sparse_linear.pt", dim=dim)
    return SparseHead("splade", dim=dim)


def _multivector(module: str, said: _Dims | None, load: Mapping[str, Any]) -> MultivectorHead:
    dim = None if said is None else said.dim
    if module in _BGE_M3:
        return MultivectorHead(weights="colbert_linear.pt", dim=dim, skip_first=True)
    return MultivectorHead(
        dim=dim,
        normalize=load.get("normalize", True),
        query_tokens=load.get("query_max_length"),
        document_tokens=load.get("doc_max_length"),
        expand=load.get("query_expansion"),
    )


def _score(module: str, load: Mapping[str, Any]) -> ScoreHead:
    if module in _VERDICT:
        return ScoreHead("verdict", yes=load.get("yes_token"), no=load.get("no_token"))
    return ScoreHead("classify" if module in _CLASSIFY else "vectors")


def _extract(module: str, load: Mapping[str, Any], run: Mapping[str, Any]) -> ExtractHead:
    if module in _LABELS:
        kind = load.get("classification_type")
        return ExtractHead(
            "labels", threshold=run.get("threshold"), multi_label=None if kind is None else kind == "multi-label"
        )
    return ExtractHead(
        "entailment" if module in _ENTAILMENT else "spans",
        threshold=run.get("threshold"),
        hypothesis=run.get("hypothesis_template"),
        multi_label=run.get("multi_label"),
        merge_adjacent=run.get("merge_adjacent_entities"),
    )


def _variant(file: _File, name: str) -> Variant:
    """A child's section of options replaces its parent's as a whole where it has one, as in v0.3.1."""
    profile = file.profiles[name]
    parent = file.profiles.get(profile.extends) if profile.extends is not None else None
    if profile.extends is not None and (parent is None or parent.extends is not None):
        raise ValueError(f"profile `{name}` extends `{profile.extends}`: want a profile that extends none")
    if profile.adapter_path is not None and profile.adapter_path != file.profiles["default"].adapter_path:
        raise ValueError(
            f"profile `{name}` has the `adapter_path` `{profile.adapter_path}`: a variant has its model's heads"
        )
    run = profile.adapter_options.runtime or (parent.adapter_options.runtime if parent is not None else {})
    lora = run.get("lora_id")
    kept = {key: value for key, value in run.items() if key not in (*_SHAPING, *_OF_THE_HEAD)}
    return Variant(
        query=run.get("query_template"),
        document=run.get("doc_template"),
        default_instruction=_instruction(run),
        options=kept | {key: run[key] for key in _OF_THE_HEAD if key in run},
        outputs=tuple(run.get("output_types") or ()),
        lora=None if lora is None else Lora(ModelId(lora)),
    )
