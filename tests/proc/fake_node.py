"""koinode as it is, except that its children are those of fake_tree, which note what they see in KOI_TEST_FOLDER."""

from __future__ import annotations

import os
import sys

from koi import node
from tests.proc.fake_tree import fakes

if __name__ == "__main__":
    sys.exit(node.main(sys.argv[1:], fakes(os.environ["KOI_TEST_FOLDER"])[1]))
