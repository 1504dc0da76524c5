# The compiled core. This file holds imports and the list of parts; the parts lie in _core/ and are read in this order.
"""Compiled core of kms_fast: ciphers, hashes, DCE/RPC, requests, leaves and batches."""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock,
    WAIT_LOCK,
)
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOSPC, errno
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport qsort
from libc.string cimport memchr, memcmp, memcpy, memset, strlen
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, clockid_t, timespec
from posix.unistd cimport pread, write

from kms_fast._core.layout cimport *
from kms_fast._core.rpc cimport *
from kms_fast._core.wire cimport (
    Reader, bytes_left, get_bytes, get_u8, get_u16, load_u16, load_u32, load_u64, read_from, skip, store_u16, store_u32,
    store_u64,
)

import math
import os
import struct
from collections import deque
from ipaddress import ip_address
from itertools import cycle
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.ciphers.algorithms import AES128 as FallbackAes
from cryptography.hazmat.primitives.cmac import CMAC as FallbackCmac

from kms_fast.errors import AnswerRejected
from kms_fast.results import find_result

include "_core/aes.pxi"
include "_core/sha256.pxi"
include "_core/hmac.pxi"
include "_core/siv.pxi"
include "_core/merkle.pxi"
include "_core/text.pxi"
include "_core/message.pxi"
include "_core/verify.pxi"
include "_core/pdu.pxi"
include "_core/session.pxi"
include "_core/bind.pxi"
include "_core/client_session.pxi"
include "_core/counts.pxi"
include "_core/admission.pxi"
include "_core/batch.pxi"
include "_core/commit.pxi"
include "_core/segment.pxi"
include "_core/audit.pxi"
include "_core/export.pxi"
include "_core/change.pxi"
include "_core/fold.pxi"
include "_core/columns.pxi"
include "_core/host.pxi"
include "_core/sockets.pxi"
include "_core/poller.pxi"
include "_core/connection.pxi"
include "_core/latency.pxi"
include "_core/load.pxi"
include "_core/load_connection.pxi"
