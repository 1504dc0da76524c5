"""The publisher's side: root and issuer keys, catalog, host keys, certificates, revocations. Hosts never import it."""
