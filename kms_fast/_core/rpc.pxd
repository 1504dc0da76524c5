# Every number of connection-oriented DCE/RPC that we use: C706 chapter 12, MS-RPCE 2.2.2, docs/rpc.md. Offsets are from
# the start of the PDU.

cdef enum:
    RPC_VERSION = 5
    RPC_VERSION_MINOR = 0
    DREP_LITTLE_ASCII = 0x10    # first octet of the data representation: little-endian integers, ASCII
    DREP_IEEE = 0x00            # second octet: IEEE floating point

    PTYPE_REQUEST = 0
    PTYPE_RESPONSE = 2
    PTYPE_FAULT = 3
    PTYPE_BIND = 11
    PTYPE_BIND_ACK = 12
    PTYPE_BIND_NAK = 13
    PTYPE_ALTER_CONTEXT = 14
    PTYPE_ALTER_CONTEXT_RESP = 15
    PTYPE_CO_CANCEL = 18
    PTYPE_ORPHANED = 19
    PTYPE_COUNT = 20            # types from here on are unknown

    PFC_FIRST_FRAG = 0x01
    PFC_LAST_FRAG = 0x02
    PFC_WHOLE = 0x03
    PFC_CONC_MPX = 0x10
    PFC_DID_NOT_EXECUTE = 0x20
    PFC_OBJECT_UUID = 0x80

    # Common header.
    PDU_VERSION = 0
    PDU_VERSION_MINOR = 1
    PDU_PTYPE = 2
    PDU_FLAGS = 3
    PDU_DREP = 4
    PDU_FRAG_LENGTH = 8
    PDU_AUTH_LENGTH = 10
    PDU_CALL_ID = 12
    COMMON_HEADER_SIZE = 16

    # Request, response and fault share 24 bytes.
    CALL_ALLOC_HINT = 16
    CALL_CONTEXT_ID = 20
    CALL_OPNUM = 22             # in a response or fault: cancel count and a reserved octet
    CALL_HEADER_SIZE = 24
    OBJECT_UUID_SIZE = 16
    FAULT_STATUS = 24
    FAULT_SIZE = 32

    # bind, bind_ack, alter_context, alter_context_resp share 24 bytes.
    BIND_MAX_XMIT_FRAG = 16
    BIND_MAX_RECV_FRAG = 18
    BIND_ASSOC_GROUP_ID = 20
    BIND_BODY = 24
    CONTEXT_LIST_HEADER_SIZE = 4
    CONTEXT_LIST = 28           # in a bind: u16 ID, u8 transfer syntaxes, reserved octet, the syntaxes
    SYNTAX_SIZE = 20
    UUID_SIZE = 16
    RESULT_SIZE = 24
    BIND_NAK_SIZE = 21
    BIND_NAK_REASON = 16
    BIND_NAK_VERSIONS = 18

    # Result of a presentation context.
    RESULT_ACCEPTANCE = 0
    RESULT_PROVIDER_REJECTION = 2
    RESULT_NEGOTIATE_ACK = 3
    REASON_NOT_SPECIFIED = 0
    REASON_ABSTRACT_SYNTAX = 1
    REASON_TRANSFER_SYNTAXES = 2
    REASON_LOCAL_LIMIT = 3
    FEATURE_KEEP_CONNECTION_ON_ORPHAN = 2

    # Reasons of a bind_nak.
    NAK_NOT_SPECIFIED = 0
    NAK_LOCAL_LIMIT_EXCEEDED = 2
    NAK_PROTOCOL_VERSION = 4
    NAK_AUTHENTICATION_TYPE = 8

    MIN_FRAGMENT_SIZE = 1432    # what every implementation must be able to receive
    MAX_FRAGMENT_SIZE = 5840    # the most we receive or send; four Ethernet segments, the customary figure
    MAX_ARGUMENT_SIZE = 4096    # range() in docs/kms_fast.idl; answers keep to it as well
    MAX_PADDING_SIZE = 7        # octets that a stub may carry beyond its last field

    # Request stub: length, maximum count, octets.
    REQUEST_STUB_HEADER_SIZE = 8
    # Response stub: length, referent, maximum count, octets, padding, result.
    RESPONSE_STUB_HEADER_SIZE = 12
    RESPONSE_PREFIX_SIZE = 36   # CALL_HEADER_SIZE + RESPONSE_STUB_HEADER_SIZE
    NULL_ANSWER_STUB_SIZE = 12
    RESULT_FIELD_SIZE = 4
    REFERENT = 0x00020000

    MAX_CONTEXTS = 8            # accepted presentation contexts of one connection

    # Status of a fault: C706 appendix E, MS-RPCE 2.2.2.10.
    FAULT_ACCESS_DENIED = 0x00000005
    FAULT_BAD_STUB_DATA = 0x000006F7
    FAULT_OP_RANGE = 0x1C010002
    FAULT_UNKNOWN_INTERFACE = 0x1C010003
    FAULT_PROTOCOL_ERROR = 0x1C01000B
