"""Names in a chart whose width is not known: none touches another, at any width."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headrace_compiler.report.labels import (
    Box,
    Label,
    Spot,
    clear,
    mark_box,
    place_labels,
    spread_out,
)

HEIGHT = 300
WIDTHS = (200, 520)
spots = st.lists(
    st.builds(
        Spot,
        name=st.text("abc-", min_size=1, max_size=30),
        place=st.floats(0, 1),
        y=st.integers(0, HEIGHT),
        radius=st.sampled_from([5, 9]),
        bold=st.just(False),  # noqa: FBT003 - what the strategy draws
    ),
    max_size=12,
)


def edges(box: Box, width: int) -> tuple[float, float, float, float]:
    """Left, right, top and bottom in pixels at a width."""
    across = box.place * width
    return across + box.left, across + box.right, box.top, box.bottom


def touching(one: Box, other: Box, width: int) -> bool:
    """Whether two boxes overlap at a width."""
    left, right, top, bottom = edges(one, width)
    others = edges(other, width)
    gap = 1e-6
    across = left + gap < others[1] and others[0] + gap < right
    return across and top + gap < others[3] and others[2] + gap < bottom


@given(spots=spots, width=st.integers(*WIDTHS))
def test_names_touch_neither_each_other_nor_marks(spots: list[Spot], width: int) -> None:
    """At every width between the two, each name is inside the chart and clear of all else."""
    labels = place_labels(spots, (), WIDTHS, HEIGHT)
    boxes = [label.box for label in labels]
    for number, box in enumerate(boxes):
        left, right, top, bottom = edges(box, width)
        assert left >= -1e-6
        assert right <= width + 1e-6
        assert 0 <= top < bottom <= HEIGHT
        others = [*boxes[number + 1 :], *(mark_box(spot) for spot in spots)]
        assert not [other for other in others if touching(box, other, width)]


def test_the_first_name_gets_the_room() -> None:
    """Where two names do not fit, the one that comes first is written."""
    upper, lower = Spot("x" * 20, 0.0, 20, 5, bold=False), Spot("y" * 20, 0.0, 30, 5, bold=False)
    fixed = [Box(0.0, 0, 520, 31, HEIGHT)]
    for crowd in ([upper, lower], [lower, upper]):
        labels = place_labels(crowd, fixed, WIDTHS, HEIGHT)
        assert [label.spot for label in labels] == crowd[:1]
    assert len(place_labels([upper, lower], (), WIDTHS, HEIGHT)) == 2


def test_a_bold_name_is_never_left_out_for_other_marks() -> None:
    """The chosen variant has its name even in a crowd of marks."""
    crowd = [Spot(str(n), (n % 20) / 20, 12 * (n // 20), 5, bold=False) for n in range(500)]
    chosen = Spot("chosen", 0.5, 150, 9, bold=True)
    labels: tuple[Label, ...] = place_labels([chosen, *crowd], (), WIDTHS, HEIGHT)
    assert labels[0].spot is chosen


def test_boxes_that_change_sides_are_not_clear() -> None:
    """What is left of another on a narrow screen and right of it on a wide one meets it between."""
    near, far = Box(0.1, 60, 80, 0, 10), Box(0.3, 0, 20, 0, 10)
    assert clear(near, far, (100, 110))
    assert clear(near, far, (600, 700))
    assert not clear(near, far, (100, 700))


@given(st.lists(st.floats(0, 100), max_size=7))
def test_names_of_lines_are_spread_out(wanted: list[float]) -> None:
    """They are at least a line apart, in their order, and inside where they fit."""
    found = spread_out(wanted, 14, 0, 100)
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    rising = [found[index] for index in order]
    assert all(b - a >= 14 - 1e-9 for a, b in pairwise(rising))
    assert all(-1e-9 <= place <= 100 for place in found)
