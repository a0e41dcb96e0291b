"""`python -m hear_msm_mae` is the same as the `hear-msm-mae` command."""

from .cli import main

if __name__ == "__main__":
    main()
