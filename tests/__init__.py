"""The tests.  What is set here holds in each process that runs some of them."""

import gc
import hashlib
import os
from functools import lru_cache
from pathlib import Path

# Hypothesis keeps what it has found, and what it knows of the code and of Unicode, which it takes
# seconds to find out; trial's folder is a new one for each run.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parent.parent / ".hypothesis")
)

# Servers and clients in one process derive the same keys of the same passwords and salts, one after
# the other: a millisecond for each, in thousands of logins.
hashlib.pbkdf2_hmac = lru_cache(256)(hashlib.pbkdf2_hmac)  # type: ignore[assignment]

# As often as by default, the collector takes a twentieth of the time of the tests.
gc.set_threshold(10_000)
