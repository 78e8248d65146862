"""How docstrings are shown: an extension of griffe, which reads them."""

import importlib
import inspect
import re
import textwrap

import griffe

EXAMPLE = re.compile(r"(?m)^>>> .*(?:\n.+)*")
CALL_ARGUMENTS = re.compile(r"(?m)^Call arguments:\n((?:    .*\n?)+)")
ARGUMENT = re.compile(r"(?m)^(\w[\w, ]*):")


class Docstrings(griffe.Extension):
    """Fences the `>>>` examples, and lists the call arguments as the other arguments are listed."""

    def on_object(self, *, obj, **kwargs):
        """Rewrites the docstring of an object that was just read."""
        if made_by_a_function(obj):
            value = getattr(importlib.import_module(obj.parent.path), obj.name, None)
            if inspect.isfunction(value) and value.__doc__:
                obj.docstring = griffe.Docstring(inspect.getdoc(value), parent=obj)
        if obj.docstring:
            text = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
            obj.docstring.value = CALL_ARGUMENTS.sub(listed, text)


def made_by_a_function(obj):
    """Whether only the imported module knows the docstring: `abs = _unary(...)`."""
    return (
        obj.is_attribute
        and not obj.docstring
        and not obj.name.startswith("_")
        and obj.parent.is_module
        and obj.parent.path.startswith("ember_keras.ops.tensor.")
    )


def listed(match):
    """A section of `name: text` as a Markdown list."""
    items = ARGUMENT.sub(r"- **`\1`** –", textwrap.dedent(match.group(1)))
    return f"**Call arguments:**\n\n{items}\n"
