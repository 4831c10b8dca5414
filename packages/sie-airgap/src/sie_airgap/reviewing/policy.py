"""What may be carried: a reviewer's policy, as a YAML file with a closed schema. Pure.

What a file leaves out is as in the default policy, so that a policy says only what it changes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta, Struct

from sie_airgap.amounts import parse_size
from sie_core.ids import nearest
from sie_core.yaml_documents import document

Level = Literal["deny", "note", "allow"]
"""What comes of it: a finding that refuses the lock, a finding that only stands in the report, or nothing."""

Rule = Literal[
    "licence", "gated", "remote-code", "pickle", "branch", "size", "registry", "tag", "platform", "unlocked", "untried"
]
_Text = Annotated[str, Meta(min_length=1, max_length=500)]


class Licences(Struct, frozen=True, forbid_unknown_fields=True):
    """SPDX identifiers as globs, whatever their case: `bsd-*`. `denied` counts before `allowed`.

    Attributes:
        allowed: anything else is a finding; empty: everything that is not denied is allowed.
        denied: of several that hold together (`AND`) one is enough; of several to choose from (`OR`) all.
        unnamed: of a model whose repository names none.
    """

    allowed: tuple[_Text, ...] = (
        "0bsd",
        "afl-3.0",
        "apache-2.0",
        "artistic-2.0",
        "bsd-*",
        "bsl-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "isc",
        "mit",
        "ms-pl",
        "ncsa",
        "postgresql",
        "unlicense",
        "zlib",
    )
    denied: tuple[_Text, ...] = ("*-nc", "*-nc-*", "*noncommercial*", "*non-commercial*", "*research-only*")
    unnamed: Level = "deny"


class Sizes(Struct, frozen=True, forbid_unknown_fields=True):
    """The most that something may be, as `20GB` or `700MiB`; None: anything. `total` counts each blob once."""

    file: str | None = None
    model: str | None = None
    image: str | None = None
    total: str | None = None


class Images(Struct, frozen=True, forbid_unknown_fields=True):
    """Container images.

    Attributes:
        registries: globs of the hosts that they may be named after; empty: any.
        denied_tags: globs of tags that mean something else tomorrow; a name without a tag is `latest`.
        platforms: that every image must have, as `linux/amd64`.
        unlocked: of images that a chart was seen to name, with other values say, and that are not carried.
        untried: of values of a chart that may bring images and that it does not render with.
    """

    registries: tuple[_Text, ...] = ()
    denied_tags: tuple[_Text, ...] = ("latest", "main", "master", "edge", "nightly", "dev")
    platforms: tuple[_Text, ...] = ()
    unlocked: Level = "note"
    untried: Level = "note"


class Excuse(Struct, frozen=True, forbid_unknown_fields=True):
    """A finding that somebody has accepted.

    Attributes:
        rule: as the finding names it.
        what: glob of the model or the image.
        because: who accepted it, and why; it stands in the report.
    """

    rule: Rule
    what: _Text
    because: _Text


class Policy(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole policy.

    Attributes:
        version: of the schema.
        gated: of models whose hub wants a licence accepted.
        remote_code: of repositories that name code for loaders to run; it is neither carried nor run here.
        pickles: of weights in files that other programs would unpickle; workers read them without running any.
        branches: of models that were asked for by a branch: `--update` may move them anywhere.
        excuses: findings that are accepted.
    """

    version: Literal[1] = 1
    licences: Licences = Licences()
    gated: Level = "note"
    remote_code: Level = "note"
    pickles: Level = "note"
    branches: Level = "allow"
    sizes: Sizes = Sizes()
    images: Images = Images()
    excuses: tuple[Excuse, ...] = ()


_SECTIONS: Mapping[str, type[Struct]] = {"licences": Licences, "sizes": Sizes, "images": Images}


def parse_policy(data: bytes, *, where: str) -> Policy:
    """Raises `ValueError` naming the file, the key and what was wanted; a misspelt key with the nearest known one."""
    try:
        lines = yaml.compose(data, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{where} is not YAML: {error}") from error
    _check_once(lines, where)
    tree = document(data, where=where)
    if not isinstance(tree, dict):
        raise ValueError(f"{where} is not a policy: want a mapping like `gated: deny`, have {type(tree).__name__}")
    _check_keys(tree, Policy, where, "")
    for name, kind in _SECTIONS.items():
        if isinstance(tree.get(name), dict):
            _check_keys(tree[name], kind, where, f"{name}.")
    try:
        policy = msgspec.convert(tree, Policy)
        for size in (policy.sizes.file, policy.sizes.model, policy.sizes.image, policy.sizes.total):
            if size is not None:
                parse_size(size)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return policy


def _check_once(tree: Any, where: str) -> None:
    """Of two values for one key YAML takes the last and says nothing; in a policy the first may be the one meant."""
    todo, looked = [tree], set[int]()
    while todo:
        node = todo.pop()
        if id(node) in looked or not isinstance(node, yaml.CollectionNode):
            continue
        looked.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
            continue
        seen: set[str] = set()
        for key, below in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ValueError(f"{where}, line {key.start_mark.line + 1}: `{key.value}` stands here a second time")
            seen.add(str(key.value))
            todo.append(below)


def _check_keys(tree: Mapping[Any, Any], kind: type[Struct], where: str, prefix: str) -> None:
    known = kind.__struct_fields__
    for key in tree:
        if key not in known:
            near = nearest(str(key), known, most=1)
            meant = f"did you mean `{prefix}{near[0]}`?" if near else f"known are {', '.join(known)}"
            raise ValueError(f"{where}: there is no `{prefix}{key}` in a policy; {meant}")
