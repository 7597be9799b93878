"""How threads wait: asleep, not spinning. Importing this before torch is what counts.

OpenMP's threads spin by default while they wait. On a machine with anything else to do that is a collapse: on two cores
beside another process the miniature trains at 10,000 to 15,000 tokens a second with sleeping threads and at 1,400 to
2,700 with spinning ones (docs/decisions.md). A user's own setting wins.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
