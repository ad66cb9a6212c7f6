"""The page: whole by itself, honest about what is not known, and with the right rungs on the front."""

import re
import xml.etree.ElementTree as ET

import pytest
from measured_rungs import energy, profile, rung

from flyball.measure.page import front, page
from flyball.plots import log_ticks, ticks

SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)
LADDER = (
    rung("big", 14.0, 0.996),
    rung("mid", 1.8, 0.990),
    rung("beaten", 2.0, 0.985),
    rung("small", 0.6, 0.942),
)


def plots(text: str) -> list[ET.Element]:
    return [ET.fromstring(found) for found in SVG.findall(text)]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = page(profile(*LADDER))
    assert "<script" not in text
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert len(plots(text)) == 3


def test_every_rung_is_a_mark_and_none_leaves_the_picture() -> None:
    scatter = plots(page(profile(*LADDER)))[0]
    _, _, width, height = map(float, scatter.attrib["viewBox"].split())
    circles = list(scatter.iter("circle"))
    assert len(circles) == len(LADDER)
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < width
        assert 0 < float(circle.attrib["cy"]) < height
    by_name = {g.findtext("text"): g.find("circle") for g in scatter.iter("g")}
    assert set(by_name) == {r.name for r in LADDER}
    big, small = by_name["big"], by_name["small"]
    assert big is not None
    assert small is not None
    assert float(big.attrib["cx"]) > float(small.attrib["cx"]), "slower is further right"
    assert float(big.attrib["cy"]) < float(small.attrib["cy"]), "more accurate is higher"
    assert float(big.attrib["r"]) > float(small.attrib["r"]), "more energy is larger"


def test_the_scale_of_accuracy_leaves_its_title_room() -> None:
    scatter = plots(page(profile(rung("big", 14.0, 0.996), rung("small", 0.6, 0.942))))[0]
    found = [t.text for t in scatter.iter("text") if (t.text or "").endswith("%")]
    assert "96%" in found
    assert max(map(len, filter(None, found))) <= 5, "longer ones lie under the title of the axis"


def test_energy_has_a_table_of_its_own_that_needs_no_moving_to() -> None:
    heads = [
        re.findall(r"<th>(.*?)</th>", table) for table in re.findall(r"<table>.*?</table>", page(profile(*LADDER)))
    ]
    assert [len(head) <= 11 for head in heads] == [True, True]
    assert {"W", "scope", "mJ gross", "mJ net", "FPS/W", "throttled s"} <= set(heads[1])


def test_the_bars_begin_at_zero() -> None:
    latency = plots(page(profile(*LADDER)))[1]
    widths = [float(rect.attrib["width"]) for rect in latency.iter("rect")]
    assert widths[0] / widths[3] == pytest.approx(14.0 / 0.6, rel=0.02)


def test_the_front_holds_what_no_other_rung_beats() -> None:
    assert front(LADDER) == {"big", "mid", "small"}


def test_less_energy_keeps_a_slower_and_worse_rung_on_the_front() -> None:
    frugal = rung("beaten", 2.0, 0.985, energy=energy(0.001))
    assert "beaten" in front((*LADDER[:2], frugal))


def test_energy_of_another_scope_is_not_compared() -> None:
    frugal = rung("beaten", 2.0, 0.985, energy=energy(0.001, scope="estimated"))
    assert "beaten" not in front((*LADDER[:2], frugal))


def test_equals_stay_both() -> None:
    assert front((rung("a"), rung("b"))) == {"a", "b"}


def test_names_are_text_and_nothing_else() -> None:
    text = page(profile(rung("a.b"), ladder="x", inputs='<img src=x onerror="alert(1)">', version="1"))
    assert "<img" not in text
    assert "&lt;img" in text


def test_what_is_not_valid_says_so() -> None:
    bad = rung("short", valid=False, reasons=("it ran for 3.0 s",))
    text = page(profile(LADDER[0], bad))
    assert "Not valid." in text
    assert "it ran for 3.0 s" in text
    faded = [g.findtext("text") for g in plots(text)[0].iter("g") if "faded" in g.attrib["class"].split()]
    assert faded == ["short"]
    assert "Not valid." not in page(profile(*LADDER))


def test_power_never_stands_without_its_scope_and_uncertainty() -> None:
    text = page(profile(rung(energy=energy(0.1, "estimated", uncertainty=0.6))))
    assert "<td>5 ± 60%</td><td>estimated</td>" in text
    unknown = page(profile(rung(energy=energy(0.1, "board", uncertainty=None))))
    assert "<td>5 ± ?</td><td>board</td>" in unknown


def test_no_data_is_no_zero() -> None:
    text = page(profile(rung(energy=None, accuracy=None, throttled_s=None)))
    assert "There is no energy figure" in text
    assert "The manifest gives no accuracy" in text
    assert len(plots(text)) == 1
    without_net = plots(page(profile(rung(energy=energy(net_j=None, idle_w=None)))))[2]
    assert not list(without_net.iter("rect")), "no bar where there is no net figure"


def test_a_profile_of_failures_alone_still_has_a_page() -> None:
    text = page(profile(rung(valid=False, error="it did not open", latency=None, energy=None, early_stopping=None)))
    assert "it did not open" in text
    assert not plots(text)


@pytest.mark.parametrize("count", [1, 2])
def test_few_rungs_and_equal_figures_have_a_picture(count: int) -> None:
    assert len(plots(page(profile(*[rung(f"r{i}") for i in range(count)])))) == 3


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.935, 0.999), (0.0, 173.0), (0.9, 0.9002)])
def test_ticks_are_round_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in found)


def test_logarithmic_ticks() -> None:
    assert log_ticks(0.4, 30) == pytest.approx([0.5, 1, 2, 5, 10, 20])
    assert log_ticks(0.001, 5000) == pytest.approx([0.001, 0.01, 0.1, 1, 10, 100, 1000])
