"""What operators ask of a fleet: apply and plan mappings, and report their status."""
