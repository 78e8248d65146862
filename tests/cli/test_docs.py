"""The console blocks of the docs run."""

import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINES = sorted(
    {
        line.removeprefix("$ ember-keras ").partition(">")[0].strip()
        for page in ("command_line.md", "configuration.md")
        for block in BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
        for line in block.splitlines()
    }
)


@pytest.mark.parametrize("line", LINES)
def test_console(command, line):
    done = command(*shlex.split(line))
    assert done.status == 0, done.err
    assert done.out
