"""What is put around a text before it is tokenised."""

import re
from dataclasses import dataclass
from typing import Final

_TEXT: Final = "{text}"
_INSTRUCTED: Final = "{instruction} {text}"
_PLACE: Final = re.compile(r"\{(text|instruction)\}")


@dataclass(frozen=True)
class Prompts:
    """A model's templates, as in its spec.

    Attributes:
        query: of a query; holds `{text}` and perhaps `{instruction}`; None leaves the text as it is.
        document: of a document, likewise.
        default_instruction: for a query whose call names none.
    """

    query: str | None = None
    document: str | None = None
    default_instruction: str | None = None

    def shape(self, text: str, *, is_query: bool, instruction: str | None) -> str:
        """The text as the model is to see it.

        A template says itself where an instruction goes, and leaves it out where it has no place for one.
        Without a template the instruction stands before the text.
        """
        template, instruction = self._chosen(is_query, instruction)
        return _filled(template, text, instruction)

    def before(self, *, is_query: bool, instruction: str | None) -> str:
        """What stands before the text."""
        template, instruction = self._chosen(is_query, instruction)
        return _filled(template.partition(_TEXT)[0], "", instruction)

    def _chosen(self, is_query: bool, instruction: str | None) -> tuple[str, str | None]:
        """The template, and what its instruction is."""
        template = self.query if is_query else self.document
        if instruction is None and is_query:
            instruction = self.default_instruction
        if template is None:
            return _TEXT if instruction is None else _INSTRUCTED, instruction
        return template, instruction


def _filled(template: str, text: str, instruction: str | None) -> str:
    """Both at once: braces in a text or an instruction are its own."""
    parts = {"text": text, "instruction": instruction or ""}
    return _PLACE.sub(lambda place: parts[place[1]], template)
