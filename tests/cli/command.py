"""Runs the command `ember-keras`, in this process or in one of its own."""

import subprocess
import sys
from dataclasses import dataclass

from ember_keras.cli.main import main


@dataclass
class Done:
    """What a command gave."""

    status: int
    out: str
    err: str


def start(arguments, before="", **options):
    """Starts the command as a process, which runs the code `before` first."""
    code = (
        f"import runpy, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"{before}\nsys.argv = ['ember-keras', *sys.argv[1:]]\n"
        "runpy.run_module('ember_keras', run_name='__main__')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def in_process(capfd, *arguments):
    """Runs the command here; its output is what `capfd` saw."""
    capfd.readouterr()
    status = main([str(argument) for argument in arguments])
    return Done(status, *capfd.readouterr())
