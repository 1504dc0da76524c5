"""kms_fast's protocol in plain Python, written from docs/protocol.md, docs/rpc.md and docs/keys.md alone.

It imports nothing of kms_fast (tests/reference/test_independence.py reads the imports), favours the specification's own
wording over speed, and is what the compiled core, the client and the server are compared with.

    crypto        signatures with a context, HKDF, AES-SIV (and AES-SIV once more over bare AES blocks)
    merkle        the tree of RFC 9162, by its recursive definition
    request       keys of a SKU, sealed fields, request
    certificate   issuer and host certificates, revocation list
    answer        leaf, batch header, answer
    verify        what a client checks, steps 1 to 25
    host          a publisher and a host small enough to make vectors and hostile answers with
    rpc           DCE/RPC PDUs and a blocking client
"""
