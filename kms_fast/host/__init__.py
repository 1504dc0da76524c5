"""The activation host: admission, batches, ledger, listener, and the files of its home."""
