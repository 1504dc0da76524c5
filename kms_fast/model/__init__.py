"""Values and rules of volume activation: keys, certificates, catalog, publisher file, leases, policy. No I/O."""
