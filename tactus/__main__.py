"""`python -m tactus` is the command `tactus`."""

import sys

from tactus.runtime.commands import main

sys.exit(main())
