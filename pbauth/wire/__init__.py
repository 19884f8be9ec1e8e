"""The broker: Perspective Broker's wire, its limits, and revocation of what was given."""
