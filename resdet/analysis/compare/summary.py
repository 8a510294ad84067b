"""What a comparison found, in words and as large figures."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from resdet.analysis.compare.comparison import AP, Comparison, ContestantRecord, FigureDifference
from resdet.analysis.compare.numbers import between, percent, signed, three
from resdet.analysis.compare.verdict import NOT_SIGNIFICANT, SIGNIFICANT
from resdet.analysis.pages.page import Headline, details, note

FEW = 3  # backbones beside the first, of which each has its headline, its sentence and its table
HE_2015 = (
    "The paper's gain of 28 % (VGG-16 21.2, ResNet-101 27.2; He et al. 2015, table 8) belongs to its protocol: COCO"
    " 2014, a short schedule, short side 600, RoI pooling. Others who measured both nets again under modern training"
    " found +17 to +27 % on COCO. What stands on this page belongs to the data and the budget of steps named here."
)


def headlines(first: ContestantRecord, others: Sequence[ContestantRecord]) -> list[Headline]:
    shown = [Headline(first.name, three(_ap(first)), "box AP, mean over seeds")]
    for other in others[:FEW]:
        difference = other.against_first[AP]
        detail = f"{signed(difference.difference)} ({percent(difference.relative)}): {difference.verdict}"
        shown.append(Headline(other.name, three(_ap(other)), detail))
    return shown


def _ap(contestant: ContestantRecord) -> float | None:
    return contestant.figures[AP].mean


def summary(first: ContestantRecord, others: Sequence[ContestantRecord], content: Comparison) -> Markup:
    sentences = [Markup("<p>{}</p>").format(_sentence(first, other)) for other in others]
    if len(others) > FEW:
        sentences = [_counted(first, others), details("Each backbone in words", Markup("").join(sentences))]
    if {"vgg16", "resnet101"} <= {one.backbone for one in (first, *others)}:
        sentences.append(Markup("<p>{}</p>").format(HE_2015))
    if content.missing:
        sentences.append(note(f"{len(content.missing)} runs are missing; the last section names them."))
    return Markup("").join(sentences)


def _counted(first: ContestantRecord, others: Sequence[ContestantRecord]) -> Markup:
    """How many backbones are better and worse than the first, and the names of those."""
    found = [(other, other.against_first[AP]) for other in others]
    sure = [
        (other, one.difference) for other, one in found if one.verdict == SIGNIFICANT and one.difference is not None
    ]
    groups = {
        "more": [other.name for other, difference in sure if difference > 0],
        "less": [other.name for other, difference in sure if difference < 0],
    }
    told = [f"{len(names)} significantly {word}: {', '.join(names)}" for word, names in groups.items() if names]
    text = f"Of {len(others)} backbones compared with {first.name} by box AP, " + (
        f"{'; '.join(told)}. Of the others no difference is significant." if told else "none differs significantly."
    )
    return Markup('<p class="summary">{}</p>').format(text)


def _sentence(first: ContestantRecord, other: ContestantRecord) -> str:
    difference = other.against_first[AP]
    value = difference.difference
    if value is None:
        return f"{other.name}: {difference.reason}."
    more = "more" if value >= 0 else "less"
    relative = difference.relative
    share = "" if relative is None else f" ({abs(relative):.1%} {more})"
    return (
        f"{other.name} reaches a box AP of {three(_ap(other))}, {abs(value):.3f} {more}{share} than {first.name};"
        f" 95 % interval {between(difference.low, difference.high, plus=True)}. {_in_words(difference)}"
    )


def _in_words(difference: FigureDifference) -> str:
    """The verdict in words, and the smallest difference that this comparison could detect."""
    word, detectable = difference.verdict, difference.detectable
    smallest = (
        "" if detectable is None else f" A true difference of {detectable:.3f} would be found four times of five."
    )
    if word == SIGNIFICANT:
        return f"The difference is significant.{smallest}"
    if word == NOT_SIGNIFICANT:
        return f"The difference is not significant.{smallest}"
    return f"No verdict: {difference.reason}."
