"""The heap of the process of the tests."""

from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase


def freezeHeap(test: SynchronousTestCase) -> None:
    """
    Have the collector look only at what a test makes from now on.

    It takes the collector a long time to look at all that other tests have left.

    Args:
        test: at its end, the collector looks at everything again.
    """
    gc.collect()
    gc.freeze()
    test.addCleanup(gc.unfreeze)
