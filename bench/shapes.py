"""Checkpoints of the true shape of large models, with seeded random weights: as fast as the real ones, and as exact.

    .venv-parity/bin/python -m bench.shapes NAME FOLDER

Quality is not measured with these. The tokenizer is all-MiniLM-L6-v2's for all of them: it only has to give ids
that are in the vocabulary, and texts that are as long for everybody.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from sie_core.catalog.spec import DenseHead, ModelSpec, MultivectorHead, ScoreHead, SparseHead
from sie_core.ids import ModelId
from sie_testing.parts import minilm_folder

SPECS: Final[Mapping[str, ModelSpec]] = {
    "bge-m3": ModelSpec(
        id=ModelId("BAAI/bge-m3"),
        max_tokens=8192,
        dense=DenseHead(pooling="cls", normalize=True, dim=1024),
        sparse=SparseHead("lexical", weights="sparse_linear.pt", dim=250002),
        multivector=MultivectorHead(weights="colbert_linear.pt", dim=1024, skip_first=True),
        score=ScoreHead("vectors"),
    ),
    "bge-m3-dense": ModelSpec(
        id=ModelId("BAAI/bge-m3"), max_tokens=8192, dense=DenseHead(pooling="cls", normalize=True, dim=1024)
    ),
    "e5-base-v2": ModelSpec(
        id=ModelId("intfloat/e5-base-v2"), max_tokens=512, dense=DenseHead(pooling="mean", normalize=True, dim=768)
    ),
    "mxbai-rerank-large-v1": ModelSpec(
        id=ModelId("mixedbread-ai/mxbai-rerank-large-v1"), max_tokens=512, score=ScoreHead("classify")
    ),
}
"""By name; `bge-m3-dense` is the same checkpoint with one output."""

_TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def write(name: str, folder: Path) -> Path:
    """Writes the checkpoint called `name` where there is none yet; a folder that is there is whole."""
    if not folder.is_dir():
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for file in _TOKENIZER_FILES:
            if (minilm_folder() / file).is_file():
                shutil.copy(minilm_folder() / file, unfinished / file)
        _WRITERS[name](unfinished)
        unfinished.rename(folder)
    return folder


def _e5_base(folder: Path) -> None:
    import transformers

    model = transformers.BertModel(_seeded(transformers.BertConfig()), add_pooling_layer=False)
    model.save_pretrained(folder)
    _as_sentence_transformer(folder, 768, 512, pooling="mean")


def _bge_m3(folder: Path) -> None:
    """As on the hub: `pytorch_model.bin`, and a layer of its own for each of the other outputs."""
    import torch
    import transformers

    config = transformers.XLMRobertaConfig(
        vocab_size=250002,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=8194,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = transformers.XLMRobertaModel(_seeded(config), add_pooling_layer=False)
    config.architectures = ["XLMRobertaModel"]
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    for file, width in (("sparse_linear.pt", 1), ("colbert_linear.pt", 1024)):
        torch.save(torch.nn.Linear(1024, width).state_dict(), folder / file)
    _as_sentence_transformer(folder, 1024, 8192, pooling="cls")


def _mxbai_rerank(folder: Path) -> None:
    import transformers

    config = transformers.DebertaV2Config(
        vocab_size=128100,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        max_position_embeddings=512,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        relative_attention=True,
        max_relative_positions=-1,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        pooler_dropout=0.0,
        pooler_hidden_act="gelu",
        pooler_hidden_size=1024,
        num_labels=1,
    )
    transformers.DebertaV2ForSequenceClassification(_seeded(config)).save_pretrained(folder)


def _seeded(config: Any) -> Any:
    import torch

    torch.manual_seed(0)
    return config


def _as_sentence_transformer(folder: Path, width: int, max_tokens: int, *, pooling: str) -> None:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"embedding_dimension": width, "pooling_mode": pooling})
    )
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": max_tokens, "do_lower_case": False})
    )


_WRITERS: Final[Mapping[str, Callable[[Path], None]]] = {
    "bge-m3": _bge_m3,
    "e5-base-v2": _e5_base,
    "mxbai-rerank-large-v1": _mxbai_rerank,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes one checkpoint.")
    parser.add_argument("name", choices=sorted(_WRITERS))
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write(arguments.name, arguments.folder)


if __name__ == "__main__":
    main()
