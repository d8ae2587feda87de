"""`python -m app.cli` is `hilo`."""

import sys

from app.cli.program import main

sys.exit(main())
