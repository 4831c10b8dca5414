"""One model's answers against the recorded ones, and what an operator is told of it. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sie_airgap.proof.golden_file import Answer, Dense, GoldenModel, Kind, Series
from sie_airgap.proof.grading import Grade, Graded, grade, ranks_hold, terms_of
from sie_core.ids import ModelId

HALVES = frozenset({"bf16", "f16"})


@dataclass(frozen=True)
class SeriesGrades:
    """The grades of one kind of answers.

    Attributes:
        answers: name of the text → its grade.
        ranks_held: whether the vectors rank each other as the recorded ones do; other kinds have none to rank.
        errors: what differs besides: a text refused here and not there, or the reverse.
    """

    kind: Kind
    answers: Mapping[str, Graded]
    ranks_held: bool
    errors: tuple[str, ...]

    @property
    def grade(self) -> Grade:
        if self.errors or not self.ranks_held:
            return Grade.DIFFERENT
        return max((one.grade for one in self.answers.values()), default=Grade.DIFFERENT)

    def figures(self) -> str:
        worst = max((one.max_abs for one in self.answers.values()), default=float("inf"))
        cosines = [one.cosine for one in self.answers.values() if one.cosine is not None]
        return f"largest difference {worst:.1e}" + (f", least cosine {min(cosines):.6f}" if cosines else "")

    def drift(self) -> Iterator[str]:
        """Every answer that is different, by its name and with both values."""
        for name, one in self.answers.items():
            yield from (f"`{name}`, {what}" for what in one.drift)
        if not self.ranks_held:
            yield "the answers rank each other otherwise than the recorded ones do"
        yield from self.errors


@dataclass(frozen=True)
class Comparison:
    """One model's grades.

    Attributes:
        computed: what the two sides computed in, the recorded one first.
        series: of each kind of answers that was recorded.
    """

    id: ModelId
    computed: tuple[str | None, str | None]
    series: tuple[SeriesGrades, ...]

    @property
    def grade(self) -> Grade:
        return max((one.grade for one in self.series), default=Grade.DIFFERENT)

    def lines(self) -> Iterator[str]:
        """For an operator: the verdict on each kind, then every answer of it that is different."""
        sides = "{} recorded, {} here".format(*(precision or "unknown precision" for precision in self.computed))
        for one in self.series:
            yield f"{self.id}: {len(one.answers)} {one.kind} answers {one.grade} ({one.figures()}; {sides})"
            yield from (f"  {self.id} {one.kind} {what}" for what in one.drift())


def compared(recorded: GoldenModel, now: Mapping[Kind, Sequence[Answer]], *, precision: str | None) -> Comparison:
    """Every recorded answer against the one of the same kind and name.

    Args:
        precision: what `now` was computed in; None: nobody said so, and it is held to float32.
    """
    in_16_bits = any(not HALVES.isdisjoint((one or "").split(",")) for one in (recorded.precision, precision))
    series = tuple(_series(one, now[one.kind], in_16_bits=in_16_bits) for one in recorded.series)
    return Comparison(recorded.id, (recorded.precision, precision), series)


def _series(recorded: Series, now: Sequence[Answer], *, in_16_bits: bool) -> SeriesGrades:
    said = [answer.said for answer in recorded.answers if answer.said is not None]
    terms = terms_of(said, in_16_bits=in_16_bits, threshold=recorded.threshold)
    by_name = {answer.name: answer for answer in now}
    grades: dict[str, Graded] = {}
    errors: list[str] = []
    for before in recorded.answers:
        after = by_name[before.name]
        if before.said is not None and after.said is not None:
            grades[before.name] = grade(before.said, after.said, terms)
        elif before.error != after.error:
            errors.append(f"`{before.name}`: was {before.error or 'an answer'}, is {after.error or 'an answer'}")
    return SeriesGrades(recorded.kind, grades, _ranks_held(recorded.answers, by_name), tuple(errors))


def _ranks_held(recorded: Sequence[Answer], now: Mapping[str, Answer]) -> bool:
    """Of dense vectors of one length; those of another are different by themselves."""
    pairs = [
        (one.said.vector, after.vector)
        for one in recorded
        if isinstance(one.said, Dense) and isinstance(after := now[one.name].said, Dense)
    ]
    if any(before.shape != after.shape for before, after in pairs):
        return True
    return not pairs or ranks_hold([before for before, _ in pairs], [after for _, after in pairs])
