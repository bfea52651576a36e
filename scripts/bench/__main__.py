"""``python scripts/bench``: measures time and memory against yardsticks; ``--help`` tells the options."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts this folder itself there, whose modules are imported as ``bench.NAME`` only.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from bench.command import main

    sys.exit(main())
