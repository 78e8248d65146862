"""Every preset has a page, and what the page says of its size is so."""

import re

import keras
import numpy as np
import pytest
from docs.blocks import ROOT
from keras import tree

import ember_keras as ek
from ember_keras.config.presets import FAMILIES

pytestmark = pytest.mark.once
FOLDER = ROOT / "docs" / "models"
ROW = r"^\| `{}` \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+)(, grows)? \|$"
LENGTH = 1024


@pytest.mark.parametrize("name", ek.models.presets.names())
def test_the_page_has_the_size_of_the_preset(name):
    page = (FOLDER / f"{name.rpartition('-')[0]}.md").read_text(encoding="utf-8")
    row = re.search(ROW.format(re.escape(name)), page, re.MULTILINE)
    assert row, "no row"
    with keras.StatelessScope(initialize_variables=False):  # Sizes alone, without the memory.
        model = ek.models.presets.build(name)
        model.build((None, None))
        parameters = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
        assert row[1] == str(model.width) and row[2] == str(len(model.backbone.stack))
        assert row[3] == f"{parameters:,}"
        if name.endswith(("-tiny", "-small")):
            states = [_bytes(model.initial_state(1, n)) for n in (LENGTH, 2 * LENGTH)]
            assert row[4] == f"{states[0]:,}" and bool(row[5]) == (states[0] != states[1])


def _bytes(state):
    sizes = [(int(np.prod(x.shape)), np.dtype(str(x.dtype)).itemsize) for x in tree.flatten(state)]
    return sum(count * size for count, size in sizes)


def test_every_page_is_of_a_family_and_the_index_leads_to_it():
    names = {page.stem for page in FOLDER.glob("*.md")} - {"index"}
    assert names == set(FAMILIES)
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    assert [name for name in sorted(names) if f"]({name}.md)" not in index] == []
