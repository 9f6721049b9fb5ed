# SPDX-License-Identifier: GPL-2.0
"""Entry point of `scripts/pcpb`: makes the package importable and starts it."""

import os
import sys

# Started as a folder, Python puts that folder first; the package is the folder.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from pcpb_cli import cli  # noqa: E402  (needs the path above)

sys.exit(cli.main())
