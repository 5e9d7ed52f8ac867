"""Modules joined into one script: in order, with their names apart, and only in forms that are understood."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from dirprune.page import make_single_page
from dirprune.page.files import embed_json
from dirprune.page.single import join_modules
from tests.browser import open_browser

ROOT = Path(__file__).parents[2]


def join(**modules: str) -> str:
    return join_modules("main.js", lambda name: modules[name.removesuffix(".js")])


def test_joined_modules_do_what_they_do_apart() -> None:
    script = join(
        main='import { total } from "./sum.js";\nimport { Box } from "./box.js";\n'
        "const add = 3;\nwindow.answer = await new Box().open() + total(add);\n",
        sum='import {\n  unit, list,\n} from "./unit.js";\nconst add = (a) => a * unit;\n'
        "export function total(n) {\n  return [...list()].reduce((sum, one) => sum + one, add(n));\n}\n",
        box='import { unit } from "./unit.js";\nexport class Box {\n  open = open;\n}\n'
        "async function open() {\n  return unit;\n}\nexport async function unused() {}\n",
        unit="export const unit = 100;\nexport function* list() {\n  yield 1;\n  yield 2;\n}\n",
    )
    assert script.count("const unit = 100") == 1
    with open_browser() as browser:
        page = browser.new_page()
        page.set_content(f'<script type="module">{script}</script>')
        page.wait_for_function("window.answer !== undefined")
        assert page.evaluate("window.answer") == 100 + 300 + 1 + 2


@pytest.mark.parametrize(
    "line",
    [
        'import * as other from "./other.js";',
        'import other from "./other.js";',
        'import "./other.js";',
        "export default 3;",
        "export { one };",
        "export let one = 1;",
        'export * from "./other.js";',
        'const other = await import("./other.js");',
        'import { one } from "https://example.org/one.js";',
    ],
)
def test_a_form_that_cannot_be_joined_is_named(line: str) -> None:
    with pytest.raises(ValueError, match=r"main\.js: .*cannot be joined"):
        join(main=f"const zero = 0;\n{line}\n", other="export const one = 1;\n")


def test_a_circle_is_named() -> None:
    one, two = 'import { b } from "./two.js";\n', 'import { a } from "./one.js";\n'
    with pytest.raises(ValueError, match=r"main\.js -> one\.js -> two\.js -> one\.js"):
        join(main='import { a } from "./one.js";\n', one=one, two=two)


def test_data_cannot_leave_its_element_and_stays_what_it_is() -> None:
    data = {"name": "</script><!-- <b>\u2028 {{ title }}"}
    text = embed_json(data)
    assert "<" not in text
    assert json.loads(text) == data
    page = make_single_page("{{ head }} <b>", {}, data)
    assert "<title>{{ head }} &lt;b&gt;</title>" in page
    assert "{{ title }}" in page


def test_a_package_holds_every_file_of_the_page() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folder = ROOT / "dirprune" / "page"
    packed = {path for glob in settings["package-data"]["dirprune.page"] for path in folder.glob(glob)}
    there = {path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}
    assert len(there) > 10
    assert packed == there
