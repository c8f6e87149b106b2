"""`python -m tactus` is the command `tactus`."""

import sys

try:
    from tactus.runtime.commands import main
except KeyboardInterrupt:
    sys.exit(130)

sys.exit(main())
