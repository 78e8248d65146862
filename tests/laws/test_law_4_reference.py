"""Law 4: outputs and every gradient, by name, equal the reference, so they are equal across
backends.

The reference is made once, on numpy in float64 with the engines' plain loops (see `reference.py`).
"""

import numpy as np
import pytest
from laws import cases, reference
from laws.support import gradients, run

import ember_keras as ek

ALL = cases.SEQUENCE + cases.CHANNEL


@pytest.mark.parametrize("case", **cases.by_id(ALL))
def test_outputs_equal_the_reference(case, known, assert_close):
    expected = known[f"{case.kind}/{case.id}"]["output"]
    assert_close(run(case.build(), reference.inputs(case)), expected)


@pytest.mark.trains
@pytest.mark.parametrize("case", **cases.by_id(ALL))
def test_every_gradient_equals_the_reference(case, known, assert_close):
    expected = known[f"{case.kind}/{case.id}"]
    layer = case.build()
    weights = reference.cotangent(expected["output"].shape).astype("float32")
    found, of_input = gradients(layer, reference.inputs(case), weights)
    names = [name for name in expected if name[0].isdigit()]
    assert len(names) == len(found) > 0 or not layer.trainable_weights
    for i, (name, gradient) in enumerate(zip(names, found, strict=True)):
        _compare(gradient, expected[name], i, name, assert_close)
    if not case.takes_tokens:
        _compare(of_input, expected["input"], -1, "input", assert_close)


def _compare(gradient, expected, index, name, assert_close):
    gradient = ek.backend.to_numpy(gradient).astype("float64")
    given = [np.sum(gradient * d) for d in reference.directions(gradient.shape, index)]
    # The scale is that of the whole gradient: a product with one direction may be near zero.
    scale = np.sqrt(np.sum(gradient**2) / max(1, gradient.size))
    scale = max(scale, np.max(np.abs(expected)))
    assert_close(np.append(given, scale), np.append(expected, scale), name=name)
