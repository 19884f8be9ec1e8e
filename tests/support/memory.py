"""The heap of the process of the tests."""

from __future__ import annotations

import gc

#: So few objects the collector looks at in a few milliseconds.
_FEW = 20_000


def freezeHeap() -> None:
    """
    Have the collector look only at what tests make from now on.

    It takes the collector a tenth of a second to look at the modules and at what other tests have
    left.  For a test that asks it to collect, or keeps much, before that makes anything.
    """
    if len(gc.get_objects()) > _FEW:
        gc.collect()
        gc.freeze()
