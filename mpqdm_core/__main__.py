"""`python -m mpqdm_core`: see `mpqdm_core.command_line`."""

import sys

from mpqdm_core.command_line import main

sys.exit(main())
