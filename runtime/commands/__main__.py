"""`python -m runtime.commands` is `tactus`."""

import sys

from runtime.commands import main

sys.exit(main())
