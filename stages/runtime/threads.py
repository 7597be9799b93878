"""How long threads spin before they sleep. Importing this before torch is what counts.

OpenMP's threads spin by default while they wait for work. Alone on the machine that is fastest; beside anything else it
is a collapse. A short spin keeps most of the one and avoids the other (figures in docs/decisions.md). A user's own
setting wins.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
