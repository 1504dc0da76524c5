"""Hosts in DNS: where a client finds one, how a host publishes itself, and what the records lead to."""
