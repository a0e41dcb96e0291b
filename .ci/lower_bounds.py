"""Print the lower bounds of setup.cfg as pip constraints: python .ci/lower_bounds.py EXTRA ..."""

import configparser
import re
import sys
from pathlib import Path

parser = configparser.ConfigParser()
parser.read(Path(__file__).parent.parent / "setup.cfg")
extras = parser["options.extras_require"]
lines = [parser["options"]["install_requires"], *(extras[name] for name in sys.argv[1:])]
for line in "\n".join(lines).split():
    name, bound = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?(?:>=([\w.]+))?", line).groups()
    if bound:
        print(f"{name}=={bound}")
