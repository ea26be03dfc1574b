"""What the daemon costs and how fast it is, measured against scripts without any semantics."""
