"""What is predicted of a model's memory is what it takes, or more: measured in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models

from sie_server.models.backbones import deberta
from sie_server.models.predicting import (
    GRAPH_BYTES,
    SMALL_BYTES,
    WeightsBytes,
    openvino_bytes,
    tokenizer_bytes,
    torch_bytes,
)
from sie_testing import parts

MORE = SMALL_BYTES // 20

READING = """
import sys
from pathlib import Path

from sie_server import machine
from sie_server.models.tokenizer_files import held_by_tokenizer
from sie_server.models.tokenizing import load_tokenizer

folder = Path(sys.argv[1])
predicted = held_by_tokenizer(folder)
machine.give_back()
before = machine.anonymous_bytes()
tokenizer = load_tokenizer(folder, max_tokens=512, lower_case=False)
machine.give_back()
print(predicted, machine.anonymous_bytes() - before)
"""


SHAPES: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", "hidden_size": 640, "intermediate_size": 2560, "num_attention_heads": 10},
    "deberta": {
        "model_type": "deberta-v2",
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "relative_attention": True,
        "position_buckets": 256,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
    },
}
"""Of more than 100 MB, beyond which a model is there once."""

WRITING = """
import json, sys
from pathlib import Path
import numpy as np
from sie_server.models.backbones.known import BACKBONES
from sie_server.models.checkpoint import Checkpoint, Weight
from sie_server.models.ops.openvino import OpenvinoOps
from sie_testing.tiny_bert import write_safetensors

said, arrays = json.loads(sys.argv[1]), {}

class Drawn(Checkpoint):  # has whatever it is asked for
    def __contains__(self, name):
        return "conv." not in name
    def unseen(self, name, shape):
        return Weight("F32", arrays.setdefault(name, np.full(shape, 0.01, np.float32)))

backbone = BACKBONES[said["model_type"]]
backbone.build(OpenvinoOps(Drawn({}, {}), "f32"), backbone.read(json.dumps(said).encode()), "")
write_safetensors(Path(sys.argv[2]) / "model.safetensors", arrays, sys.argv[3])
"""

LOADING = """
import json, sys
from pathlib import Path
from sie_server import machine
from sie_server.models.backbones.known import BACKBONES
from sie_server.models.checkpoint import open_checkpoint
from sie_server.models.ops.openvino import OpenvinoOps
from sie_server.models.predicting import openvino_bytes

said, checkpoint = json.loads(sys.argv[1]), open_checkpoint(Path(sys.argv[2]))
backbone = BACKBONES[said["model_type"]]
config = backbone.read(json.dumps(said).encode())
predicted = openvino_bytes(checkpoint.predicted("f32"), made=backbone.made_bytes(config), streams=2)
ops = OpenvinoOps(checkpoint, "f32")
machine.give_back()
before = machine.anonymous_bytes()
ops.output("hidden", backbone.build(ops, config, ""))
graph = ops.compiled(streams=2, threads=1)
graph.settle()
machine.give_back()
print(predicted, machine.anonymous_bytes() - before)
"""


def in_a_process(code: str, *arguments: object) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(number) for number in done.stdout.split()]


def unigram(folder: Path, *, indent: bool) -> Path:
    """40,000 pieces, as long as words are."""
    pieces = [("<unk>", 0.0), *((f"▁{number * 2_654_435_761 % 10**7:07}", -float(number)) for number in range(40_000))]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.save(str(folder / "tokenizer.json"), pretty=indent)
    return folder


@pytest.mark.parametrize("indent", [False, True])
def test_a_tokenizer_of_many_pieces_takes_no_more_than_is_predicted(tmp_path: Path, indent: bool) -> None:
    predicted, taken = in_a_process(READING, unigram(tmp_path, indent=indent))

    assert predicted / 3 < taken <= predicted


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt"])
def test_so_does_a_genuine_one_of_words(tmp_path: Path, file: str) -> None:
    for name in (file, "tokenizer_config.json"):
        (tmp_path / name).write_bytes((parts.minilm_folder() / name).read_bytes())
    predicted, taken = in_a_process(READING, tmp_path)

    assert predicted / 3 < taken <= predicted


@pytest.mark.parametrize(("kind", "stored"), [("bert", "F32"), ("bert", "F16"), ("bert", "BF16"), ("deberta", "F32")])
def test_a_large_model_takes_no_more_than_is_predicted(tmp_path: Path, kind: str, stored: str) -> None:
    said = json.dumps({"vocab_size": 1000, "num_hidden_layers": 10, "max_position_embeddings": 512} | SHAPES[kind])
    in_a_process(WRITING, said, tmp_path, stored)
    predicted, taken = in_a_process(LOADING, said, tmp_path)

    assert predicted > SMALL_BYTES
    assert predicted / 1.5 < taken <= predicted


def test_a_kind_that_is_not_known_counts_as_the_largest() -> None:
    assert tokenizer_bytes(b'{"model":{"type":"New"}}') == 80 * 24
    assert tokenizer_bytes(b'{"model": {"type": "BPE"}}\n') == 8 * 24


@pytest.mark.parametrize(
    ("computed", "streams", "networks", "want"),
    [
        (SMALL_BYTES - 7, 2, 1, 2 * (SMALL_BYTES + MORE + GRAPH_BYTES)),
        (SMALL_BYTES - 6, 2, 1, SMALL_BYTES + 1 + MORE + GRAPH_BYTES),
        (SMALL_BYTES - 7, 1, 1, SMALL_BYTES + MORE + GRAPH_BYTES),
        (SMALL_BYTES + 1, 2, 2, 2 * (SMALL_BYTES + 8 + MORE + 2 * GRAPH_BYTES)),
    ],
)
def test_a_small_model_is_there_twice(computed: int, streams: int, networks: int, want: int) -> None:
    weights = WeightsBytes(computed=computed, mapped=1_000)

    assert openvino_bytes(weights, made=7, streams=streams, networks=networks) == want
    assert openvino_bytes(WeightsBytes(computed, 0, copied=5), made=7, streams=streams, networks=networks) == want + 5


def test_a_device_has_the_tables_as_well() -> None:
    assert torch_bytes(WeightsBytes(100, 10, 1), made=1_000) == 1_111


def test_distances_are_one_table_a_layer_and_kind() -> None:
    said: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    said |= {"relative_attention": True, "position_buckets": 256, "pos_att_type": ["p2c", "c2p"]}
    config = deberta.read_deberta(json.dumps(said).encode())

    assert deberta.made_bytes(config) == 24 * 2 * 512 * 1024 * 4
