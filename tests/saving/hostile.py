"""Files that attack a loader, one for each rule and advisory; made by code, none is kept.

Each maker takes the good files, the path to write, and a canary: a path that appears if code in the
file runs. `HOSTILE` maps a case to its maker and to what the error must say. The makers are in
`hostile_configs`, `hostile_archives` and `hostile_weights`.
"""

import base64
import marshal
import subprocess

HOSTILE = {}


def hostile(rule, says, suffix=".keras"):
    """Registers a maker under its name; `says` is a pattern of the error, `suffix` the file's."""

    def register(make):
        HOSTILE[make.__name__] = (make, rule, says, suffix)
        return make

    return register


class Touch:
    """A pickle that runs a command when it is read."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return subprocess.call, (["touch", self.canary],)


def code_of(canary):
    """A function as Keras saves a lambda: marshalled bytecode that makes the canary."""
    source = f"lambda x: [open({str(canary)!r}, 'w').close(), x][1]"
    code = marshal.dumps(eval(source).__code__)
    return {"code": base64.b64encode(code).decode(), "defaults": None, "closure": None}
