"""Makes the modules of tools/ importable by their names."""

import sys

from places import ROOT

sys.path.insert(0, str(ROOT / "tools"))
