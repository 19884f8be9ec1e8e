"""Many accounts at once: export and import."""
