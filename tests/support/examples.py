"""How Hypothesis draws examples here: however busy the machine is."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    # No test asserts a time.
    "pbauth",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pbauth")
