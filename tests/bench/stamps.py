"""Scripts that stamp the wall time with little delay, the same for Koi and its peers.

bash knows the time by itself; /bin/sh must run `date`, which adds 0.6 ms on a quiet machine and several on a busy one. What is
left in every figure that ends with a stamp is the start of bash, some 1 ms.
"""

from __future__ import annotations

SHELL = "#!/bin/bash\nLC_ALL=C\n"
STAMP = SHELL + """echo "$EPOCHREALTIME $KOI_NODE $KOI_ACTION begin $KOI_EPOCH" >> {stamps}
{body}
echo "$EPOCHREALTIME $KOI_NODE $KOI_ACTION end $KOI_EPOCH" >> {stamps}
"""
"""Takes the place of tests.cluster.STAMP."""
