"""`python -m hear_msm_mae.pretrain RECIPE [key=value ...]`: start or resume a run."""

from __future__ import annotations

import argparse
import logging
import sys

EXIT_BAD_INPUT = 2  # nothing was done


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 finished, 128 + n stopped by signal n, 2 refused, 1 diverged."""
    parser = argparse.ArgumentParser(prog="python -m hear_msm_mae.pretrain", description=__doc__)
    parser.add_argument("recipe", help="YAML file, or name of a shipped recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument("--no-resume", action="store_true", help="refuse to continue a run")
    options = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from .settings import load_recipe
    from .train import TrainingDiverged, pretrain

    try:
        outcome = pretrain(load_recipe(options.recipe, options.overrides), not options.no_resume)
    except (ValueError, OSError) as error:
        logging.error("%s", error)
        return EXIT_BAD_INPUT
    except TrainingDiverged as error:
        logging.error("%s", error)
        return 1
    return 0 if outcome.signal is None else 128 + outcome.signal


if __name__ == "__main__":
    sys.exit(main())
