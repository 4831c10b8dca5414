"""Links lead somewhere, and every page can be reached."""

import re
from pathlib import PurePosixPath

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _links(page):
    return [target for target in _LINK.findall(page.prose) if "://" not in target and not target.startswith("mailto:")]


def _resolved(page, target):
    """The path relative to the repository that a link means; `a/../b` is walked."""
    parts = []
    for part in (PurePosixPath(page.path).parent / target.split("#")[0]).parts if target.split("#")[0] else [page.path]:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _anchor(heading):
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_relative_link_resolves(pages, root):
    broken = [
        f"{page.path}: {target}"
        for page in pages.values()
        for target in _links(page)
        if not (root / _resolved(page, target)).exists()
    ]

    assert broken == []


def test_every_anchor_is_a_heading(pages):
    broken = [
        f"{page.path}: {target}"
        for page in pages.values()
        for target in _links(page)
        if "#" in target
        and target.split("#")[1] not in {_anchor(heading) for heading in pages[_resolved(page, target)].headings}
    ]

    assert broken == []


def test_every_page_is_reached_from_the_readme(pages):
    reached, waiting = set(), ["README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path not in pages:
            continue
        reached.add(path)
        waiting += [_resolved(pages[path], target) for target in _links(pages[path])]

    assert set(pages) - reached == set()


def test_no_document_names_this_machine_or_looks_our_packages_up_by_name(pages):
    """Our own wheels come from a folder: packages with some of these names exist elsewhere and are not ours."""
    wrong = [
        f"{page.path}: {found}"
        for page in pages.values()
        for found in re.findall(r"/(?:work|root|home)/\w+|pip install (?:-\S+ )*sie[-_]\w+", page.text)
    ]

    assert wrong == []
