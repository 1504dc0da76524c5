"""Where a client finds its host: addresses as users write them, and SRV records in DNS."""
