"""Every registered class keeps its arguments: as attributes, and in `get_config`."""

import pytest

from ember_keras import registry

REGISTERED = [
    pytest.param(kind, name, id=f"{kind}-{name}")
    for kind in registry.KINDS
    for name in registry.table(kind).names()
]


REQUIRED = {
    ("pipelines", "training"): {"task": "in_context_recall", "model": "causal_lm"},
    ("wirings", "explicit"): {"sensory": [[1]], "recurrent": [[1]]},
}
"""Arguments without a default; a name that is not here builds with none."""


@pytest.mark.parametrize("kind, name", REGISTERED)
def test_every_argument_is_an_attribute_and_in_the_config(kind, name):
    component = registry.table(kind).build(name, **REQUIRED.get((kind, name), {}))
    config = component.get_config()
    for parameter in registry.own_parameters(type(component)):
        assert hasattr(component, parameter.name), parameter.name
        assert parameter.name in config, parameter.name


@pytest.mark.parametrize("kind, name", REGISTERED)
def test_it_has_one_line_that_says_what_it_is(kind, name):
    assert registry.table(kind).describe(name)
