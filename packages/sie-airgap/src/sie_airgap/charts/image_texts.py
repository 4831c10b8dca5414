"""Where text names an image: a reference with a host, a word after `image`, or parts that make one together.

Pods are put together by operators from what they read: arguments, environment, annotations, ConfigMaps that hold
YAML or JSON, fields of custom resources. Everything found here is a guess. A reference with a host and a tag or
digest is taken wherever it stands. A short one (`alpine:3.19`) is taken only where something called an image is
given it, since `host:port`, `key:value` and times look the same.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sie_core.yaml_documents import parsed

_MOST_TEXT = 1 << 20
_MOST_NODES = 100_000

_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_TAG = r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"@sha256:[0-9a-f]{64}"
_TAIL = rf"(?:{_TAG}(?:{_DIGEST})?|{_DIGEST})"
_HOST = r"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::[0-9]{1,5})?|localhost(?::[0-9]{1,5})?|[a-z0-9-]+:[0-9]{1,5})"
_NOT_BEFORE, _NOT_AFTER = r"(?<![A-Za-z0-9_./@:-])", r"(?![A-Za-z0-9_/-]|\.[A-Za-z0-9])"
_WITH_HOST = re.compile(rf"{_NOT_BEFORE}({_HOST})(?:/{_PATH})+{_TAIL}{_NOT_AFTER}")
_SHORT = re.compile(rf"{_PATH}(?:/{_PATH})*{_TAIL}")
_WHOLE = re.compile(rf"(?:{_HOST}/)?{_PATH}(?:/{_PATH})*{_TAIL}?")
_GIVEN = re.compile(
    rf"(?i:(?:image(?:_?name|_?ref(?:erence)?)?[\"']?\s*[:=]\s*[\"']?|--[\w-]*image\s+))({_SHORT.pattern}){_NOT_AFTER}"
)
"""`--sidecar-image=alpine:3.19`, `"image": "alpine:3.19"`, `PROXY_IMAGE=alpine:3.19` inside a longer text."""
_PULLED = re.compile(rf"\b(?:docker|podman|nerdctl|crictl|ctr)\b[^\n;|&]*?\s({_SHORT.pattern}){_NOT_AFTER}")
_CALLED_IMAGE = re.compile(r"image(?:s|[-_.]?name|[-_.]?ref(?:erence)?)?$", re.IGNORECASE)
_WORD_IMAGE = re.compile(r"(?:^|_)IMAGE(?:_|$)")

_NO_REGISTRY = re.compile(
    r"(?:(?!registry\b)[a-z0-9-]+\.)*(?:kubernetes\.io|k8s\.io|helm\.sh|prometheus\.io|github\.com|gitlab\.com|golang\.org|schemas\..*)"
)
"""Hosts that name labels, annotations and source code, and serve no images; registry.k8s.io does."""
_REGISTRIES_OF_THEIRS = ("registry.k8s.io", "registry.gitlab.com")


def in_text(text: str) -> Iterator[str]:
    """References in the midst of any text."""
    for found in _WITH_HOST.finditer(text):
        if _is_registry(found[1]):
            yield found[0].rstrip(".")
    for pattern in (_GIVEN, _PULLED):
        for found in pattern.finditer(text):
            if _has_a_letter(found[1]):
                yield found[1].rstrip(".")


def in_named(name: str, value: str) -> Iterator[str]:
    """References in a value that is called something: a variable, a key, a field, an annotation."""
    if (_CALLED_IMAGE.search(name) or _WORD_IMAGE.search(name)) and _SHORT.fullmatch(value) and _has_a_letter(value):
        yield value
        return
    yield from dict.fromkeys([*in_text(value), *_in_document(value)])


def in_arguments(words: Sequence[str]) -> Iterator[str]:
    """References in a command line, also in the word after `--image`."""
    for before, word in zip(["", *words], words, strict=False):
        if before.startswith("-") and _CALLED_IMAGE.search(before) and _SHORT.fullmatch(word):
            yield word
        else:
            yield from in_text(word)


def in_parts(node: Mapping[str, Any]) -> Iterator[str]:
    """The reference that a mapping has in parts: `registry`, `repository` (or `name`, `image`), `tag`, `digest`."""
    parts = {key: node.get(key) for key in ("registry", "repository", "name", "image", "tag", "digest")}
    if parts["tag"] is None and parts["digest"] is None:
        return
    path = parts["repository"] or parts["image"] or (parts["name"] if parts["registry"] else None)
    if isinstance(path, str):
        yield from _joined(parts["registry"], path, parts["tag"], parts["digest"])


def in_variables(variables: Mapping[str, str]) -> Iterator[str]:
    """The references that variables have in parts: `X_IMAGE_REPOSITORY` or `X_IMAGE_NAME` with `X_IMAGE_TAG`."""
    for name, value in variables.items():
        for end in ("_REPOSITORY", "_REPO", "_NAME"):
            prefix = name.removesuffix(end)
            if prefix == name or not _WORD_IMAGE.search(prefix):
                continue
            tag = variables.get(f"{prefix}_TAG") or variables.get(f"{prefix}_VERSION")
            digest = variables.get(f"{prefix}_DIGEST")
            if tag or digest:
                yield from _joined(variables.get(f"{prefix}_REGISTRY"), value, tag, digest)


def can_be_pulled(text: str) -> bool:
    """Whether the value of an `image` key can be a reference at all: a picture's address or a template cannot."""
    return _WHOLE.fullmatch(text) is not None


def _joined(registry: Any, path: str, tag: Any, digest: Any) -> Iterator[str]:
    whole = f"{registry}/{path}" if isinstance(registry, str) and registry else path
    if tag not in (None, "") and isinstance(tag, str | int | float):
        whole += f":{tag}"
    if isinstance(digest, str) and digest:
        whole += f"@{digest}"
    if whole != path and _WHOLE.fullmatch(whole):
        yield whole


def _in_document(text: str) -> Iterator[str]:
    """References in YAML or JSON inside a text: short ones, too, where an `image` is given one."""
    if len(text) > _MOST_TEXT or "image" not in text.lower():
        return
    try:
        nodes = [each for each in parsed(text, where="a text") if isinstance(each, dict | list)]
    except ValueError:
        return
    budget = _MOST_NODES
    while nodes and budget:
        node, budget = nodes.pop(), budget - 1
        if isinstance(node, Mapping):
            yield from in_parts(node)
            for key, below in node.items():
                if isinstance(below, str):
                    called = _CALLED_IMAGE.search(str(key)) and _SHORT.fullmatch(below) and _has_a_letter(below)
                    yield from (below,) if called else ()
                else:
                    nodes.append(below)
        elif isinstance(node, list):
            yield from in_arguments([one for one in node if isinstance(one, str)])
            nodes += [one for one in node if not isinstance(one, str)]


def _is_registry(host: str) -> bool:
    """Not the host of a label or of source code; the last part of a name has a letter, unless it is an address."""
    name = host.partition(":")[0]
    if name in _REGISTRIES_OF_THEIRS:
        return True
    is_address = re.fullmatch(r"[0-9]+(?:\.[0-9]+){3}", name) is not None
    return _NO_REGISTRY.fullmatch(name) is None and (is_address or _has_a_letter(name.rpartition(".")[2]))


def _has_a_letter(text: str) -> bool:
    """`12:30` is a time."""
    return re.search("[a-z]", text) is not None
