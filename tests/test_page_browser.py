"""The page in a real browser, without a window: at two widths, in both themes, on paper, with and without surprises."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser import BROWSER, Tab
from tests.page_of import empty_ones, hostile, two_nights
from worker.page import render

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium, which is not installed here")

PAGES = {"two nights": two_nights(), "hostile": hostile(), **empty_ones()}
TELEPHONE, DESK, SHEET = 390, 1280, 720

OUTSIDE = """
[...document.querySelectorAll("body *")].filter(element => {
  const box = element.getBoundingClientRect();
  const hidden = element.closest("thead") && getComputedStyle(element.closest("thead")).position === "absolute";
  return !hidden && box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(element => element.outerHTML.slice(0, 120))
"""
BOXES = """
[...document.querySelectorAll("svg[role=img]")].map(chart => {
  const box = chart.getBoundingClientRect();
  return [box.width, box.height, chart.querySelectorAll("path[d^=M], rect").length];
})
"""
TOUCHING = """
[...document.querySelectorAll("svg[role=img]")].flatMap(chart => {
  const shown = [...chart.querySelectorAll("text")].map(text => text.getBoundingClientRect()).filter(box => box.width);
  return shown.flatMap((one, number) => shown.slice(number + 1).filter(other =>
    one.left < other.right && other.left < one.right && one.top < other.bottom - 2 && other.top < one.bottom - 2));
}).length
"""


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    """A fresh browser."""
    async with Tab.opened(tmp_path / "profile") as tab:
        yield tab


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_fits_and_is_quiet(tab: Tab, tmp_path: Path, name: str) -> None:
    """At each width and in each theme nothing sticks out, nothing is complained about, nothing else is asked for."""
    path = tmp_path / "report.html"
    path.write_text(render(PAGES[name]), "utf-8")
    charts = 5 if name == "two nights" else None
    for width, theme, media in (
        (TELEPHONE, "light", "screen"),
        (TELEPHONE, "dark", "screen"),
        (DESK, "light", "screen"),
        (DESK, "dark", "screen"),
        (SHEET, "dark", "print"),
    ):
        await tab.show(path, width=width, theme=theme, media=media)
        assert await tab.value("document.documentElement.scrollWidth") == width
        assert await tab.value(OUTSIDE) == []
        assert await tab.value(TOUCHING) == 0
        boxes = await tab.value(BOXES)
        assert charts in {None, len(boxes)}
        assert all(wide > 200 and high > 20 and drawn for wide, high, drawn in boxes)
    assert tab.said == []
    assert set(tab.asked) == {path.as_uri()}


async def test_the_themes_differ_and_paper_is_white(tab: Tab, tmp_path: Path) -> None:
    """Dark follows the reader's wish, except on paper."""
    path = tmp_path / "report.html"
    path.write_text(render(two_nights()), "utf-8")
    ground = []
    for theme, media in (("light", "screen"), ("dark", "screen"), ("dark", "print")):
        await tab.show(path, width=DESK, theme=theme, media=media)
        ground.append(await tab.value("getComputedStyle(document.body).backgroundColor"))
    assert ground == ["rgb(255, 255, 255)", "rgb(16, 19, 23)", "rgb(255, 255, 255)"]


async def test_a_table_stays_a_table_to_those_who_hear_it(tab: Tab, tmp_path: Path) -> None:
    """On a telephone cells are laid out as cards, and still are cells of columns."""
    path = tmp_path / "report.html"
    path.write_text(render(two_nights()), "utf-8")
    await tab.show(path, width=TELEPHONE)
    tree = (await tab.call("Accessibility.getFullAXTree"))["nodes"]
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert {"table", "row", "cell", "columnheader"} <= set(roles)
    assert roles.count("columnheader") == 23
    assert sum(role in {"image", "img"} for role in roles) == 5
