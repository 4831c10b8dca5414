"""What torch itself saves, read without torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sie_server.models.calls import LoadError
from sie_server.models.checkpoint import PICKLED, open_checkpoint, open_tensors

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

TABLE = torch.arange(24, dtype=torch.float32).reshape(4, 6)


def saved(folder: Path, value: Any, **how: Any) -> Path:
    torch.save(value, folder / "weights.pt", **how)
    return folder / "weights.pt"


def ours(path: Path, name: str) -> Any:
    checkpoint = open_tensors(path)
    return checkpoint.weight(name, checkpoint.shape(name)).array


def bits(tensor: Any) -> Any:
    return (tensor.contiguous().view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_state_of_a_whole_network(tmp_path: Path, protocol: int) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=32, num_attention_heads=2, num_hidden_layers=2, vocab_size=50
    )
    state = transformers.BertForMaskedLM(config).state_dict()
    torch.save(state, tmp_path / PICKLED, pickle_protocol=protocol)
    checkpoint = open_checkpoint(tmp_path)

    assert checkpoint.names() == tuple(state)
    for name, tensor in state.items():
        if tensor.is_floating_point():
            assert np.array_equal(checkpoint.weight(name, tuple(tensor.shape)).array, tensor.numpy())


@pytest.mark.parametrize(
    "tensor",
    [
        TABLE.T,
        TABLE[1:3, ::2],
        TABLE[:, 5],
        TABLE[3, 3],
        TABLE[:0],
        TABLE.reshape(2, 2, 6).permute(2, 0, 1),
        torch.nn.Parameter(TABLE),
        TABLE.half(),
        TABLE.bfloat16(),
        TABLE.bfloat16().T,
    ],
)
def test_every_kind_of_tensor(tmp_path: Path, tensor: Any) -> None:
    assert np.array_equal(ours(saved(tmp_path, {"a": tensor}), "a"), bits(tensor))


def test_two_views_of_one_storage(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": TABLE, "b": TABLE[2:], "c": TABLE})

    assert np.array_equal(ours(path, "b"), TABLE[2:].numpy())
    assert open_tensors(path).size_bytes == TABLE.nbytes + TABLE[2:].nbytes


def test_what_torch_saved_before_1_6_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": TABLE}, _use_new_zipfile_serialization=False)

    with pytest.raises(LoadError, match=r"before torch 1\.6"):
        open_tensors(path)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.nn.Linear(2, 2), r"names `torch.nn.modules.linear.Linear`"),
        ({"a": TABLE, "args": transformers.TrainingArguments}, r"names `transformers"),
        ({"a": TABLE.to_sparse()}, r"names `torch"),
        ({"a": TABLE.to(torch.complex64)}, r"names `torch.ComplexFloatStorage`"),
        ({"a": TABLE.expand(3, 4, 6)}, r"of a storage of 24"),
        (TABLE, r"holds a TensorView: want tensors by name"),
    ],
    ids=["module", "class", "sparse", "complex", "repeated", "alone"],
)
def test_what_is_no_tensors_by_name_is_refused(tmp_path: Path, value: Any, why: str) -> None:
    with pytest.raises(LoadError, match=why):
        open_tensors(saved(tmp_path, value))
