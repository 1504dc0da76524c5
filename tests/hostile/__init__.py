"""A host that does wrong what it is told to, and the client that must see through it."""
