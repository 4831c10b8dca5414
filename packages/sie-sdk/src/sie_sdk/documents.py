"""Documents as they travel: the bytes of a file, and what kind of file its name says it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

DocumentLike = bytes | str | Path

_FORMATS = {
    ".pdf": "pdf",
    ".docx": "docx",
    ".doc": "doc",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "md",
    ".markdown": "md",
    ".txt": "txt",
    ".rtf": "rtf",
    ".odt": "odt",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".csv": "csv",
}


def infer_document_format(source: str | Path) -> str | None:
    """The format that a path's suffix says; None for a suffix that says none."""
    return _FORMATS.get(Path(source).suffix.lower())


def to_document_bytes(document: DocumentLike) -> tuple[bytes, str | None]:
    """A document's bytes and its format; bytes come back as they are, and their format is not known.

    Raises:
        FileNotFoundError: a path where nothing is.
        TypeError: neither bytes nor a path.
    """
    if isinstance(document, bytes):
        return document, None
    if isinstance(document, str | Path):
        return Path(document).read_bytes(), infer_document_format(document)
    raise TypeError(f"a document is a {type(document).__name__}, want bytes or a path")


def convert_item_document(item: dict[str, Any]) -> dict[str, Any]:
    """The item, its `document` replaced by what is sent: `{"data": bytes, "format": …}`.

    A `format` that the caller gave stays. Changes the item itself and returns it; the clients do this to a copy.

    Raises:
        TypeError, FileNotFoundError: as `to_document_bytes`.
    """
    document = item.get("document")
    if document is None:
        return item
    given = document if isinstance(document, Mapping) else {"data": document}
    if "data" not in given:
        raise ValueError(f"a document has the keys {sorted(given)} and no `data`")
    data, inferred = to_document_bytes(given["data"])
    item["document"] = {"data": data, "format": given.get("format", inferred)}
    return item


__all__ = ["DocumentLike", "convert_item_document", "infer_document_format", "to_document_bytes"]
