"""On-failure destinations: adapters that hand documents over. `pollers.failure_document` writes the documents."""
