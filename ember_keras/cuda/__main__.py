"""`python -m ember_keras.cuda mlx` compiles the C++ kernel's binding to the installed mlx."""

import argparse
import sys

from ember_keras.cuda import build


def main():
    """Compile what the command line names into the installed package."""
    parser = argparse.ArgumentParser(prog="python -m ember_keras.cuda", description=__doc__)
    parser.add_argument("kind", choices=["mlx"])
    parser.parse_args()
    try:
        path = build.build_mlx(build.HERE)
    except (build.BuildError, OSError) as error:
        sys.exit(f"The binding to mlx was not built: {error}.")
    sys.stdout.write(f"{path}\n")


main()
