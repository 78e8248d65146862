"""`python -m ember_keras` is the command `ember-keras`."""

import sys

from ember_keras.cli.main import main

sys.exit(main())
