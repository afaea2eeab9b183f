"""koinode as it is, except that node.run_dir is by default the folder `run` where it is started, not /run/koi."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

from koi import node
from koi.configkeys import NODE

if __name__ == "__main__":
    NODE["run_dir"] = replace(NODE["run_dir"], default=os.path.join(os.getcwd(), "run"))
    sys.exit(node.main(sys.argv[1:]))
