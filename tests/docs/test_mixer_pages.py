"""Every sequence mixer has a page, and what the page says of its state is so."""

import json
import re

import numpy as np
import pytest
from docs.blocks import ROOT
from keras import tree

import ember_keras as ek

pytestmark = pytest.mark.once
FOLDER = ROOT / "docs" / "mixers"
PARTS = ("## Equation", "## When to use it", "## State and cost", "## Example")
WIDTH, LENGTH = 256, 1024


@pytest.mark.parametrize("name", ek.registry.sequence_mixers.names())
def test_it_has_a_page_with_every_part(name):
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# `{name}`\n")
    assert [part for part in PARTS if f"\n{part}\n" not in page] == []
    assert "](https://arxiv.org/abs/" in page or "](https://doi.org/" in page


@pytest.mark.parametrize("name", ek.registry.sequence_mixers.names())
def test_the_state_has_the_size_that_the_page_says(name):
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    row = re.search(r"^\| state of a row \|.*\| *(\S.*?) *\|$", page, re.MULTILINE)
    assert row, "no row on the state"
    assert row[1] == _state_of(name)


@pytest.mark.parametrize("name", ek.registry.sequence_mixers.names())
def test_it_shows_what_was_measured_against_the_length(name):
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert f"![What a pass and a step cost against the length](costs/{name}.svg)" in page
    picture = (FOLDER / "costs" / f"{name}.svg").read_text(encoding="utf-8")
    assert f">{name}, D=" in picture
    costs = json.loads((FOLDER / "costs" / "measured.json").read_text(encoding="utf-8"))
    of = costs["mixers"][name]
    assert len(of["pass"]) >= 4
    causal = ek.registry.sequence_mixers.build(name).is_causal
    assert set(of["step"]) == (set(of["pass"]) if causal else set())


def _state_of(name):
    layer = ek.registry.sequence_mixers.build(name)
    layer.build((None, None, WIDTH))
    if not layer.is_causal:
        return "none"
    grown = [_size(layer.initial_state(1, max_length=n)) for n in (LENGTH, 2 * LENGTH)]
    return f"{grown[0]} at {LENGTH} positions" if grown[0] != grown[1] else str(grown[0])


def _size(state):
    return sum(int(np.prod(x.shape)) for x in tree.flatten(state["mixer"]))


def test_every_page_is_of_a_mixer_and_the_index_leads_to_it():
    names = {page.stem for page in FOLDER.glob("*.md")} - {"index"}
    assert names == set(ek.registry.sequence_mixers.names())
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"]({name}.md)" not in index] == []


@pytest.mark.parametrize("name", ek.registry.channel_mixers.names())
def test_the_table_of_channel_mixers_has_its_weights_and_state(name):
    page = (ROOT / "docs" / "channel_mixers.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}` \|.*\| (\d+) \| (none|\d+) \|$", page, re.MULTILINE)
    assert row, "no row"
    layer = ek.registry.channel_mixers.build(name)
    layer.build((None, None, WIDTH))
    weights = sum(int(np.prod(w.shape)) for w in layer.trainable_weights)
    state = _size(layer.initial_state(1)) if hasattr(layer, "initial_state") else "none"
    assert row.groups() == (str(weights), str(state))
