"""Every router has a page, and the index leads to it."""

import pytest
from docs.blocks import ROOT

import ember_keras as ek

pytestmark = pytest.mark.once
FOLDER = ROOT / "docs" / "routers"
PARTS = ("## Equation", "## When to use it", "## Cost", "## Example")


@pytest.mark.parametrize("name", ek.registry.routers.names())
def test_it_has_a_page_with_every_part(name):
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# `{name}`\n")
    assert [part for part in PARTS if f"\n{part}\n" not in page] == []
    assert "](https://arxiv.org/abs/" in page or "](https://doi.org/" in page


def test_every_page_is_of_a_router_and_the_index_leads_to_it():
    names = {page.stem for page in FOLDER.glob("*.md")} - {"index"}
    assert names == set(ek.registry.routers.names())
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"]({name}.md)" not in index] == []
