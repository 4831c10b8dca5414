"""Which backbone a snapshot's `config.json` asks for."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sie_server.models.backbones import bart, bert, deberta, decoder, flash, jina, modernbert, mpnet, rope
from sie_server.models.backbones.asked import Asked, seen_both_ways
from sie_server.models.ops.protocol import Ops

_WORDS: Final = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Attributes:
        read: `config.json` to what `build` needs; raises `LoadError`.
        build: the last hidden state, (T, hidden), of a config, under a prefix of the tensors' names.
        prefixes: what may stand before every tensor's name: checkpoints with a task's head have one.
        probe: the name, without prefix, of a tensor that every checkpoint of it has.
        adapt: a config as the spec wants it; raises `LoadError`.
        made_bytes: of what is computed once of a config, and held while the network is.
        pair_bytes: that a pass takes for each pair of positions of an item, measured; 0 where attention needs no more
            than its fused kernel has.
    """

    read: Callable[[bytes], Any]
    build: Callable[[Ops[Any], Any, str], Any]
    prefixes: tuple[str, ...]
    probe: str
    adapt: Callable[[Any, Asked], Any] = seen_both_ways
    made_bytes: Callable[[Any], int] = lambda config: 0
    pair_bytes: Callable[[Any], int] = lambda config: 0

    def prefix_in(self, names: Container[str], outer: str = "") -> str:
        """The one that a checkpoint's names have; the first where they have none, so that what is missing is named.

        Args:
            outer: what stands before it, of a network inside another.
        """
        prefixes = [outer + prefix for prefix in self.prefixes]
        return next((prefix for prefix in prefixes if prefix + self.probe in names), prefixes[0])


def _decoder(read: Callable[[bytes], Any]) -> Backbone:
    return Backbone(
        read, decoder.decoder, ("", "model."), "embed_tokens.weight", decoder.adapt, pair_bytes=decoder.pair_bytes
    )


BACKBONES: Final[Mapping[str, Backbone]] = {
    "bart": Backbone(bart.read_bart, bart.bart, ("", "model."), "encoder.layernorm_embedding.weight"),
    "bert": Backbone(jina.read_bert, jina.bert_or_jina, ("", "bert."), _WORDS, pair_bytes=jina.pair_bytes),
    "camembert": Backbone(bert.read_xlm_roberta, bert.bert, ("", "roberta."), _WORDS),
    "deberta-v2": Backbone(
        deberta.read_deberta,
        deberta.deberta,
        ("", "deberta."),
        _WORDS,
        made_bytes=deberta.made_bytes,
        pair_bytes=deberta.pair_bytes,
    ),
    "distilbert": Backbone(bert.read_distilbert, bert.bert, ("", "distilbert."), _WORDS),
    "electra": Backbone(bert.read_electra, bert.bert, ("", "electra."), _WORDS),
    "gemma3_text": _decoder(decoder.read_gemma3),
    "gte": Backbone(rope.read_gte, rope.rope, ("", "new.", "gte."), _WORDS, rope.adapt),
    "llama": _decoder(decoder.read_llama),
    "llama_bidirec": _decoder(decoder.read_llama_both_ways),
    "mistral": _decoder(decoder.read_mistral),
    "modernbert": Backbone(
        modernbert.read_config,
        modernbert.modernbert,
        ("", "model."),
        "embeddings.tok_embeddings.weight",
        modernbert.adapt,
    ),
    "mpnet": Backbone(mpnet.read_mpnet, mpnet.mpnet, ("", "mpnet."), _WORDS, pair_bytes=mpnet.pair_bytes),
    "new": Backbone(rope.read_gte, rope.rope, ("", "new."), _WORDS, rope.adapt),
    "nomic_bert": Backbone(rope.read_nomic, rope.rope, ("", "bert.", "nomic_bert."), _WORDS, rope.adapt),
    "qwen2": _decoder(decoder.read_qwen2),
    "qwen3": _decoder(decoder.read_qwen3),
    "roberta": Backbone(bert.read_roberta, bert.bert, ("", "roberta."), _WORDS),
    "xlm-roberta": Backbone(flash.read_xlm_roberta, flash.xlm_roberta, ("", "roberta."), _WORDS, flash.adapt),
}
"""By `model_type`; `sie_core.catalog.derive` lists the same ones."""
