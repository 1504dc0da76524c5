"""The command line: one module per command or group, and the only place where the parts are put together."""
