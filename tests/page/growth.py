"""What the picture of the hypervolume shows, read off its axis."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect


def find_steps(page: Page, label: str) -> list[float]:
    """Return where on the axis of that label the only line begins and rises, by the marks of the axis."""
    picture = page.locator("#hypervolume svg")
    expect(picture.get_by_text(label, exact=True)).to_have_count(1)
    marks = picture.locator('text[text-anchor="middle"][font-size="12"]')
    values = [float(text) for text in marks.all_text_contents()]
    places = [float(mark.get_attribute("x") or "") for mark in marks.all()]
    line = page.locator("#hypervolume .hypervolume").get_attribute("d") or ""
    scale = (values[-1] - values[0]) / (places[-1] - places[0])
    return [values[0] + (float(x) - places[0]) * scale for x in re.findall(r"[MH]([\d.]+)", line)]
