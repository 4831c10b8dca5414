"""Small seeded language models that judge, beside transformers' own next token.

The questions are put together here as their publishers do: the model card of Qwen3-Reranker, and mxbai-rerank 0.1.6.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sie_core.catalog.spec import ModelSpec, ScoreHead
from sie_core.errors import ApiError
from sie_core.ids import ModelId
from sie_server.models.calls import LoadError, Score

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [pytest.mark.parity, pytest.mark.timeout(600)]

WITHIN = 1e-4
LONGEST = 640
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
QUERY = "What is the refund window?\n"
DOCUMENTS = (
    "Refunds are made within 30 days of purchase.",
    "",
    "a",
    "\n leading and trailing \n",
    "braces {query} {document} of its own",
    "Á b? 中文 😀 שלום مرحبا",
    "The quick brown fox jumps over the lazy dog. " * 3,
    "yes no 1 0 <|im_end|>",
)
LONG = "The quick brown fox jumps over the lazy dog, 1234567. " * 60
MXBAI_TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document "
    "pair, carefully analyze the semantic relationship between them, then provide your binary relevance judgment (0 "
    "for not relevant, 1 for relevant).\nRelevance:"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2 * LONGEST,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}

Parts = Callable[[Any, str, str, str | None], list[list[int]]]


def tokenizer() -> Any:
    """Bytes, some pairs of them, and the words that these models answer."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([MXBAI_TASK, *["yes no yes no 1 0 query document yes\nno"] * 9, LONG], trainer)
    return made


def qwen3(made: Any, query: str, document: str, instruction: str | None) -> list[list[int]]:
    """What stands before, the text, what stands after."""
    asked = f"<Instruct>: {instruction or INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"
    before = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    return [made.encode(text).ids for text in (before, asked, after)]


def mxbai(made: Any, query: str, document: str, instruction: str | None) -> list[list[int]]:
    """What stands before and the query, the document, what stands after."""
    asked = f"instruction: {instruction}\nquery: {query}" if instruction else f"query: {query}"
    before = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    after = "<|im_end|>\n<|im_start|>assistant\n"
    ids = [made.encode(text).ids for text in (before, asked, "\n", f"document: {document}", "\n", MXBAI_TASK, after)]
    return [ids[0] + ids[1] + ids[2], ids[3], ids[4] + ids[5] + ids[6]]


FAMILIES: dict[str, tuple[str, Parts, tuple[str, str]]] = {
    "qwen3": ("Qwen3", qwen3, ("yes", "no")),
    "mxbai": ("Qwen2", mxbai, ("1", "0")),
}


def save(folder: Path, family: str, *, tied: bool = True, **shape: Any) -> Path:
    made = tokenizer()
    name = FAMILIES[family][0]
    own = {
        "vocab_size": made.get_vocab_size(),
        "tie_word_embeddings": tied,
        **({"head_dim": 8} if name == "Qwen3" else {}),
    }
    torch.manual_seed(0)
    network = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**SHAPE, **own, **shape)
    )
    with torch.no_grad():
        for weight in network.parameters():
            drawn = 0.3 * torch.randn_like(weight)
            weight.copy_(drawn if weight.ndim > 1 else weight + drawn)
    network.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def theirs(
    folder: Path, family: str, documents: Sequence[str], *, instruction: str | None = None, query: str = QUERY
) -> np.ndarray:
    """Of each pair on its own: the logits of yes and of no after the last token."""
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    _, parts, words = FAMILIES[family]
    network = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    ids = [made.token_to_id(word) for word in words]
    found = []
    for document in documents:
        before, asked, after = parts(made, query, document, instruction)
        room = LONGEST - len(before) - len(after)
        with torch.no_grad():
            logits = network(torch.tensor([before + asked[:room] + after])).logits[0, -1]
        found.append(logits[ids].numpy())
    return np.array(found)


def scores(logits: np.ndarray, family: str) -> Any:
    """Qwen's is the probability of yes; mxbai's how much larger its logit is."""
    if family == "mxbai":
        return logits[:, 0] - logits[:, 1]
    return torch.log_softmax(torch.tensor(logits[:, ::-1].copy()), dim=1)[:, 1].exp().numpy()


def spec(**score: Any) -> ModelSpec:
    head = ScoreHead(head="verdict", **score)
    return ModelSpec(id=ModelId("acme/judge"), score=head, max_tokens=LONGEST)


def with_instruction(model: ModelSpec, instruction: str | None) -> ModelSpec:
    return ModelSpec(id=model.id, score=model.score, max_tokens=model.max_tokens, default_instruction=instruction)


def ours(model: Any, documents: Sequence[str], *, query: str = QUERY, **call: Any) -> np.ndarray:
    asked = Score(query, tuple(documents), **call)
    prepared = model.prepare(asked)
    return np.array(model.finish(asked, prepared, model.run(prepared, stream=0)))


def default_of(family: str) -> str | None:
    return INSTRUCTION if family == "qwen3" else None


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "of its own"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_the_published_question(tmp_path: Path, load_model: Any, family: str, tied: bool) -> None:
    folder = save(tmp_path, family, tied=tied)
    wanted = scores(theirs(folder, family, DOCUMENTS), family)
    found = ours(load_model(with_instruction(spec(), default_of(family)), folder), DOCUMENTS)

    assert np.ptp(wanted) > 0.01
    assert np.abs(found - wanted).max() <= WITHIN


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_has_its_own_instruction(tmp_path: Path, load_model: Any, family: str) -> None:
    folder = save(tmp_path, family)
    wanted = scores(theirs(folder, family, DOCUMENTS, instruction="Find the answer"), family)
    model = load_model(with_instruction(spec(), default_of(family)), folder)

    assert np.abs(ours(model, DOCUMENTS, instruction="Find the answer") - wanted).max() <= WITHIN
    assert np.abs(ours(model, DOCUMENTS) - wanted).max() > 10 * WITHIN


@pytest.mark.parametrize("family", FAMILIES)
def test_the_document_is_cut_and_not_the_question(tmp_path: Path, load_model: Any, family: str) -> None:
    folder = save(tmp_path, family)
    model = load_model(with_instruction(spec(), default_of(family)), folder)
    long = model.prepare(Score(QUERY, (LONG, "short")))

    assert [(one.truncated, one.tokens == LONGEST) for one in long] == [(True, True), (False, False)]
    assert np.abs(ours(model, [LONG]) - scores(theirs(folder, family, [LONG]), family)).max() <= WITHIN


@pytest.mark.parametrize("family", FAMILIES)
def test_a_query_that_is_too_long_leaves_the_question(tmp_path: Path, load_model: Any, family: str) -> None:
    folder = save(tmp_path, family)
    model = load_model(with_instruction(spec(), default_of(family)), folder)
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    asked = model.prepare(Score(LONG, ("short", LONG)))
    after = FAMILIES[family][1](made, "", "", None)[2]

    assert all(one.truncated and one.tokens <= LONGEST for one in asked)
    assert all(one.ids[-len(after) :].tolist() == after for one in asked)
    # Of mxbai's, whose query is a part of its own, every document is asked about.
    assert (asked[0].tokens < LONGEST) == (family == "mxbai")


def test_one_alone_is_as_in_a_batch(tmp_path: Path, load_model: Any) -> None:
    model = load_model(with_instruction(spec(), INSTRUCTION), save(tmp_path, "qwen3"))
    together = ours(model, DOCUMENTS[::-1])[::-1]
    alone = np.concatenate([ours(model, [document]) for document in DOCUMENTS])

    assert np.abs(together - alone).max() <= WITHIN


def test_a_spec_has_its_own_question(tmp_path: Path, load_model: Any) -> None:
    folder = save(tmp_path, "qwen3")
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    head = {"template": "{query} answered by {document}{|}?", "yes": "1", "no": "0", "activation": "identity"}
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = made.encode("who answered by me").ids + made.encode("?").ids
    with torch.no_grad():
        logits = network(torch.tensor([ids])).logits[0, -1]
    wanted = float(logits[made.token_to_id("1")] - logits[made.token_to_id("0")])

    assert abs(ours(load_model(spec(**head), folder), ["me"], query="who")[0] - wanted) <= WITHIN


WRONG: dict[str, dict[str, Any]] = {
    "yes for no": {"yes": "no", "no": "yes"},
    "a part that is not apart": {
        "template": "<|im_start|>{query} {document}{|}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    },
    "the logit for the probability": {"activation": "identity"},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_noticed(tmp_path: Path, load_model: Any, what: str) -> None:
    folder = save(tmp_path, "qwen3")
    wanted = scores(theirs(folder, "qwen3", DOCUMENTS), "qwen3")
    found = ours(load_model(with_instruction(spec(**WRONG[what]), INSTRUCTION), folder), DOCUMENTS)

    assert np.abs(found - wanted).max() > 10 * WITHIN


@pytest.mark.parametrize("keys", [{"rms_norm_eps": 1e-3}, {"rope_theta": 9e3, "rope_parameters": None}])
def test_a_wrong_network_is_noticed(tmp_path: Path, load_model: Any, keys: dict[str, Any]) -> None:
    folder = save(tmp_path, "mxbai")
    wanted = scores(theirs(folder, "mxbai", DOCUMENTS), "mxbai")
    read = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(read | keys))

    assert np.abs(ours(load_model(spec(), folder), DOCUMENTS) - wanted).max() > 5 * WITHIN


def test_the_last_token_but_one_is_noticed(tmp_path: Path, load_model: Any) -> None:
    folder = save(tmp_path, "mxbai")
    wanted = scores(theirs(folder, "mxbai", DOCUMENTS), "mxbai")
    template = "{query}{|}{document}{|}<|im_end|>\n<|im_start|>assistant"
    model = load_model(spec(template=template, yes="1", no="0", activation="identity"), folder)

    assert np.abs(ours(model, DOCUMENTS) - wanted).max() > 10 * WITHIN


REFUSED: dict[str, tuple[ModelSpec, str]] = {
    "no place": (spec(template="{query}"), "has `{document}` 0 times"),
    "cut with the document": (spec(template="{query} {document} end"), "text after `{document}`"),
    "instruction beside": (spec(template="{instruction} {query}{|}{document}"), "`{instruction}` beside"),
    "unknown word": (spec(yes="affirmative"), "`affirmative` is not among the"),
    "no room": (ModelSpec(id=ModelId("acme/judge"), score=ScoreHead(head="verdict"), max_tokens=40), "alone is"),
    "two templates": (
        ModelSpec(id=ModelId("acme/judge"), score=ScoreHead(head="verdict"), max_tokens=LONGEST, query="q: {text}"),
        "and so is `score.template`",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, load_model: Any, what: str) -> None:
    asked, why = REFUSED[what]

    with pytest.raises(LoadError, match=why):
        load_model(asked, save(tmp_path, "qwen3"))


def test_a_length_that_leaves_no_room_is_refused(tmp_path: Path, load_model: Any) -> None:
    model = load_model(spec(), save(tmp_path, "mxbai"))

    with pytest.raises(ApiError, match="`max_seq_length` is `3`"):
        model.prepare(Score("a", ("b",), options={"max_seq_length": 3}))
