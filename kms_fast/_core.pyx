# The compiled core. This file holds imports and the list of parts; the parts lie in _core/ and are read in this order.
"""Compiled core of kms_fast: ciphers, hashes, DCE/RPC, requests, leaves and batches."""
