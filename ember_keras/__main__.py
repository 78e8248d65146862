"""`python -m ember_keras` is the command `ember-keras`."""

from ember_keras.cli.main import command

command()
