"""Which values of a chart to switch on, and what each brings: a search that says what to render next.

`search` is a generator: it yields values to render over the operator's own, is sent the images that were
rendered or what helm refused with, and returns what was `Found`. It renders nothing itself: `images`
does, and stops nothing that this page decided.

Three passes, within `MOST_RENDERS` renders together:

1. Each value that is `false`, alone, with the `enabled` of whatever encloses it. A chart that refuses gets the
   values that its message names, and where it names none the empty values beside the switch.
2. Values that are empty (null, `""`, `0`, `[]`, `{}`), filled with a placeholder, all at once; in halves where the
   chart refuses, or to see whose an image is.
3. All of both at once, likewise in halves, since some images want two values that have nothing to do with each other.

What was not rendered once is returned by name. A value that is a part of an image's own name is not filled: it
would bring no image but a name that nobody meant.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from sie_airgap.charts.inventory import ImageUse

MOST_RENDERS = 250
PLACEHOLDER = "placeholder"

Path = tuple[str, ...]
Settings = Mapping[Path, Any]
Rendered = tuple[ImageUse, ...]

_MOST_REPAIRS = 6
_MOST_LEFT_OUT = 24
_ENABLERS = ("enabled", "create", "install", "deploy")
_PART_OF_A_NAME = re.compile(r"(image|registry|repository|tag|digest|version|sha)$", re.IGNORECASE)
_TEXTS = (
    PLACEHOLDER,
    f"https://{PLACEHOLDER}.invalid",
    f"s3://{PLACEHOLDER}/{PLACEHOLDER}/",
    "1",
    "192.0.2.0/24",
    f"sha256:{0:064x}",
)
_FILLINGS: Mapping[type, tuple[Any, ...]] = {
    type(None): (True, *_TEXTS, 1),
    str: _TEXTS,
    int: (1,),
    float: (1,),
    list: ([PLACEHOLDER], [{"name": PLACEHOLDER, "value": PLACEHOLDER}], ["192.0.2.0/24"], [1]),
    dict: ({PLACEHOLDER: PLACEHOLDER},),
}


@dataclass(frozen=True)
class Refusal:
    """The chart does not render with these values; `said` is helm's message."""

    said: str


@dataclass(frozen=True)
class Switched:
    """An image that is only there with other values than the operator's.

    Attributes:
        use: with all that names it.
        switches: the values, as `a.b.c`, sorted: each set of them was rendered and brought it.
    """

    use: ImageUse
    switches: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What the search came to.

    Attributes:
        images: sorted by reference.
        not_tried: values, as `a.b.c`, that the chart was not rendered with once, sorted.
        renders: how many there were.
    """

    images: tuple[Switched, ...]
    not_tried: tuple[str, ...]
    renders: int


Search = Generator[dict[str, Any], Rendered | Refusal, Found]


def search(values: Mapping[str, Any], *, known: Set[str], most: int = MOST_RENDERS) -> Search:
    """Search a chart's values, its subcharts' included, with the operator's own over them.

    Args:
        values: what the chart renders with.
        known: references that it renders so already.
        most: renders before the rest is given up.
    """
    state = _State(values, known, most)
    alone = yield from _alone(state)
    filled = yield from _filled(state, [path for path, value in _leaves(values, ()) if _is_empty(path, value)])
    yield from _group(state, [*alone, *filled])
    return state.found()


def name_of(path: Path) -> str:
    return ".".join(path)


def overlaid(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values over others as Helm lays them: mappings are merged, everything else is replaced, null takes away."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = overlaid(below, value)
        elif value is None and key in merged:
            del merged[key]
        else:
            merged[key] = value
    return merged


class _State:
    def __init__(self, values: Mapping[str, Any], known: Set[str], most: int) -> None:
        self.values = values
        self.known = known
        self.most = most
        self.renders = 0
        self.rendered: set[Path] = set()
        self.wanted: set[Path] = set()
        self.uses: dict[str, ImageUse] = {}
        self.switches: dict[str, set[str]] = {}

    def trial(self, settings: Settings) -> Generator[dict[str, Any], Rendered | Refusal, Rendered | Refusal | None]:
        """One render; None where there may be no more."""
        self.wanted |= settings.keys()
        if self.renders >= self.most:
            return None
        self.renders += 1
        answer = yield _nested(settings)
        if isinstance(answer, Refusal):
            return answer
        self.rendered |= settings.keys()
        return tuple(use for use in answer if use.reference not in self.known and PLACEHOLDER not in use.reference)

    def fresh(self, uses: Rendered) -> Rendered:
        return tuple(use for use in uses if use.reference not in self.uses)

    def keep(self, uses: Rendered, settings: Settings) -> None:
        for use in uses:
            before = self.uses.get(use.reference)
            why = {*use.why, *(before.why if before else ())}
            is_guess = use.is_guess and (before is None or before.is_guess)
            self.uses[use.reference] = ImageUse(use.reference, tuple(sorted(why)), is_guess)
            self.switches.setdefault(use.reference, set()).update(name_of(path) for path in settings)

    def found(self) -> Found:
        images = (Switched(self.uses[one], tuple(sorted(self.switches[one]))) for one in sorted(self.uses))
        not_tried = sorted(name_of(path) for path in self.wanted - self.rendered)
        return Found(tuple(images), tuple(not_tried), self.renders)


def _alone(state: _State) -> Generator[dict[str, Any], Rendered | Refusal, list[Settings]]:
    """Every switch by itself; what the chart rendered with in the end."""
    worked: list[Settings] = []
    for path, value in _leaves(state.values, ()):
        if value is not False:
            continue
        settings = {path: True, **_enclosing(state.values, path)}
        answer = yield from state.trial(settings)
        for _ in range(_MOST_REPAIRS):
            if not isinstance(answer, Refusal):
                break
            more = _repaired(state.values, path, settings, answer)
            if more == settings:
                break
            settings = more
            answer = yield from state.trial(settings)
        if isinstance(answer, tuple):
            worked.append(settings)
            state.keep(answer, settings)
    # What only stood beside a switch to help it is not asked about again.
    state.wanted = {path for path in state.wanted if _at(state.values, path) is False}
    return worked


def _enclosing(values: Mapping[str, Any], path: Path) -> dict[Path, Any]:
    """The switches that have to be on for the one at `path` to mean anything: the `enabled` of each mapping above."""
    return {
        (*path[:depth], name): True
        for depth in range(1, len(path) - 1)
        for name in _ENABLERS
        if _at(values, (*path[:depth], name)) is False
    }


def _repaired(values: Mapping[str, Any], switch: Path, settings: Settings, refusal: Refusal) -> dict[Path, Any]:
    """The settings with what the message asks for; the same settings where nothing is left to try."""
    named = [path for path in named_in(refusal.said, values) if path != switch]
    if not named and len(settings) == 1:
        named = [path for path, _ in _leaves(_at(values, switch[:-1]), switch[:-1]) if path != switch]
        named = [path for path in named if _is_empty(path, _at(values, path))]
    more = dict(settings)
    for path in named:
        choices = _choices(_at(values, path))
        start = choices.index(more[path]) + 1 if more.get(path) in choices else 0
        if start < len(choices):
            more[path] = choices[start]
    return more


def _choices(value: Any) -> Sequence[Any]:
    if isinstance(value, bool):
        return (not value,)
    return () if value else _FILLINGS.get(type(value), ())


def named_in(said: str, values: Mapping[str, Any]) -> list[Path]:
    """The values that a message of helm or of a chart names, as `a.b.c` or `/a/b/c`, or one above what is named."""
    tokens = {token.strip(".").removeprefix("Values.") for token in re.findall(r"[\w.-]*\w\.[\w.-]*\w", said)}
    tokens |= {token.strip("/").replace("/", ".") for token in re.findall(r"'(/[^']*)'", said)}
    for subchart in re.findall(r"/charts/([\w-]+)/templates/", said):
        tokens |= {f"{subchart}.{token}" for token in tuple(tokens)}
    paths = (path for path, _ in _leaves(values, ()))
    return [path for path in paths if any(f"{token}.".startswith(f"{name_of(path)}.") for token in tokens)]


def _group(state: _State, items: Sequence[Settings]) -> Generator[dict[str, Any], Rendered | Refusal, None]:
    """All at once; in halves where the chart refuses, or to see whose an image is."""
    if len(items) < 2:
        return
    together = {path: value for settings in items for path, value in settings.items()}
    answer = yield from state.trial(together)
    if answer is None:
        return
    fresh = state.fresh(answer) if isinstance(answer, tuple) else ()
    if fresh or isinstance(answer, Refusal):
        middle = len(items) // 2
        yield from _group(state, items[:middle])
        yield from _group(state, items[middle:])
        for use in state.fresh(fresh):
            fewest = yield from _fewest(state, together, use)
            state.keep((use,), fewest)


def _fewest(
    state: _State, settings: Settings, use: ImageUse
) -> Generator[dict[str, Any], Rendered | Refusal, Settings]:
    """The settings that still bring an image when each is left out in turn; as they are where they are many."""
    left = dict(settings)
    for path in settings if len(settings) <= _MOST_LEFT_OUT else ():
        fewer = {other: value for other, value in left.items() if other != path}
        answer = yield from state.trial(fewer)
        if isinstance(answer, tuple) and use.reference in {one.reference for one in answer}:
            left = fewer
    return left


def _filled(state: _State, paths: Sequence[Path]) -> Generator[dict[str, Any], Rendered | Refusal, list[Settings]]:
    """Empty values with something in them; the next filling for those that a message names, else in halves.

    Returns what the chart rendered with.
    """
    level = dict.fromkeys(paths, 0)
    state.wanted |= level.keys()
    while level:
        settings = {path: _choices(_at(state.values, path))[at] for path, at in level.items()}
        answer = yield from state.trial(settings)
        if answer is None:
            return []
        if isinstance(answer, tuple):
            yield from _whose(state, list(settings.items()), state.fresh(answer))
            return [settings]
        named = [path for path in named_in(answer.said, state.values) if path in level]
        if not named:
            break
        for path in named:
            level[path] += 1
            if level[path] == len(_choices(_at(state.values, path))):
                del level[path]
    if len(level) > 1:
        rest, middle = list(level), len(level) // 2
        first = yield from _filled(state, rest[:middle])
        second = yield from _filled(state, rest[middle:])
        return first + second
    return []


def _whose(
    state: _State, items: Sequence[tuple[Path, Any]], fresh: Rendered
) -> Generator[dict[str, Any], Rendered | Refusal, None]:
    """Which of the values that were filled together brought the images."""
    if not fresh:
        return
    middle = len(items) // 2
    for half in (items[:middle], items[middle:]) if middle else ():
        answer = yield from state.trial(dict(half))
        if isinstance(answer, tuple):
            yield from _whose(state, half, state.fresh(answer))
    state.keep(state.fresh(fresh), dict(items))


def _leaves(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _is_empty(path: Path, value: Any) -> bool:
    return not value and value is not False and _PART_OF_A_NAME.search(path[-1]) is None


def _at(values: Any, path: Path) -> Any:
    for part in path:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _nested(settings: Settings) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in settings.items():
        below = tree
        for part in path[:-1]:
            below = below.setdefault(part, {})
        below[path[-1]] = value
    return tree
