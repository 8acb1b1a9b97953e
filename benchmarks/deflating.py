"""The servers of `echo.py` that can agree to permessage-deflate, each with its own settings for it.

python -m benchmarks.deflating NAME [--loop asyncio|uvloop] [--core N] [--profile]
"""

from __future__ import annotations

from benchmarks.servers import DEFLATING
from benchmarks.serving import main

if __name__ == "__main__":
    main(DEFLATING)
