"""The one table of results: code, name, meaning, cure.

The command line, the documents and the dashboard read it; nothing else spells out a code.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table: ``code`` is the 32-bit number administrators know, ``meaning`` and ``cure`` sentences."""

    code: int
    name: str
    meaning: str
    cure: str

    @property
    def hex(self) -> str:
        """The code as users write it: ``0xC004F038``."""
        return f"0x{self.code:08X}"


_ROWS = (
    (0x00000000, "ACTIVATED", "The machine is activated.", "Nothing to do."),
    (
        0xC004F038,
        "COUNT_TOO_LOW",
        "The host has seen fewer machines than the product's threshold.",
        (
            "Let more machines ask this host. If enough exist, look for duplicated machine IDs (CMIDs): "
            "cloned images that were not rearmed count once."
        ),
    ),
    (
        0xC004F041,
        "HOST_NOT_ACTIVATED",
        "The host has no certificate from the publisher.",
        "On the host: kms-fast host activate. Without internet: kms-fast host request, publisher certify, host apply.",
    ),
    (
        0xC004F042,
        "HOST_CANNOT_SERVE",
        "The host's certificate does not cover this product: the family is missing, or it is newer than the host key.",
        "Get a host key that covers the family and generation named here, and certify the host with it.",
    ),
    (
        0xC004F050,
        "KEY_INVALID",
        "The key is mistyped, of another publisher, or of the wrong kind.",
        "Compare the key with the one you were given, character by character, and use it where its kind belongs.",
    ),
    (
        0xC004F06C,
        "CLOCKS_DIFFER",
        "The clocks of this machine and of the host differ by more than 4 hours (in UTC).",
        "Correct the clock that is wrong; let both follow NTP.",
    ),
    (
        0xC004F074,
        "NO_HOST_REACHED",
        "No activation host could be reached.",
        "See how each host failed; check that the host runs, its name resolves and TCP port 1688 is open.",
    ),
    (
        0xC004F014,
        "NO_KEY_INSTALLED",
        "No client setup key is installed for this product.",
        "Run kms-fast client install-key with the product's client setup key.",
    ),
    (
        0xC004F00F,
        "HARDWARE_CHANGED",
        "The stored activation belongs to other hardware.",
        "Activate again on this machine: kms-fast client activate, with --mak KEY if the publisher activated it.",
    ),
    (
        0xC004F02C,
        "OFFLINE_DATA_MALFORMED",
        "A file, text or code of the offline exchange is damaged or is not what belongs here.",
        "Copy it again, whole, and check that it is the one this step asks for.",
    ),
    (
        0xC004C008,
        "HOST_KEY_USED_UP",
        "The host key has activated as many hosts, or this host as often, as it may.",
        "Ask the publisher for another host key.",
    ),
    (
        0xC004C020,
        "MULTIPLE_ACTIVATION_KEY_USED_UP",
        "The multiple-activation key has activated as many machines as it may.",
        "Ask the publisher for another multiple-activation key.",
    ),
    (0xC004F009, "GRACE_ENDED", "The grace period has ended.", "Activate: kms-fast client activate."),
    (
        0x8007232B,
        "NO_SRV_RECORD",
        "No SRV record of an activation host was found in DNS.",
        "Publish the host's record, or name a host: kms-fast client set-host HOST.",
    ),
    (
        0x8007232A,
        "DNS_UNANSWERED",
        "Name servers did not answer, so whether DNS has an SRV record of an activation host is not known.",
        (
            "See what each name server did; correct this machine's name servers (/etc/resolv.conf) or its way to them. "
            "Or name a host: kms-fast client set-host HOST."
        ),
    ),
    (
        0x80070005,
        "NOT_ALLOWED",
        "The operating system or the database does not allow this.",
        "Run the command as the user or role that owns the file or right named here.",
    ),
    (
        0xE04B0001,
        "REQUEST_UNREADABLE",
        "The host could not open the request: the setup key is not the one in its catalog, or the request was damaged.",
        "Install the right client setup key; if it is right, give the host the publisher's current catalog.",
    ),
    (
        0xE04B0002,
        "PRODUCT_UNKNOWN",
        "The host's catalog does not contain this product.",
        "Give the host the publisher's current catalog: kms-fast host apply.",
    ),
    (
        0xE04B0003,
        "SERVER_BUSY",
        "The host cannot take the request now: too many wait, its disk is almost full, or counts cannot be stored.",
        "Try again later; clients do so by themselves. On the host, look at its log for the reason.",
    ),
    (
        0xE04B0004,
        "HOST_CLOCK",
        "The host's clock is behind the last time it signed, so it signs nothing.",
        (
            "Correct the host's clock; let it follow NTP. "
            "If it was ahead when the host signed, and is right now: stop the host, then kms-fast host clock-reset."
        ),
    ),
    (
        0xE04B0005,
        "HOST_CERTIFICATE_DATES",
        "The host's certificate is not valid now, so it signs nothing.",
        "Check the host's clock; if it is right: kms-fast host renew, or host request, publisher certify, host apply.",
    ),
    (
        0xE04B0006,
        "CONFIGURATION_INVALID",
        "A setting, a file or a name that is needed here is missing or wrong.",
        "Do what is said here, or correct what is named.",
    ),
    (
        0xE04B0007,
        "LEDGER_DAMAGED",
        "The ledger does not verify.",
        (
            "Put the damaged file back from a backup of the host, then: kms-fast ledger verify. Without a backup leave "
            "it where it is; kms-fast host backup --damaged copies it too (docs/ledger.md)."
        ),
    ),
    (
        0xE04B0008,
        "STORAGE_FAILED",
        "A file could not be read or written.",
        "See the file and the system's reason; free space or correct rights, then start again.",
    ),
    (
        0xE04B0009,
        "ADDRESS_IN_USE",
        "An address and port belongs to one program; only hosts of one home share one.",
        "Stop what listens there, or set another address: listen for clients, web for the health pages.",
    ),
    (
        0xE04B000A,
        "RPC_REFUSED",
        "The server refused the remote procedure call, or what answered does not speak this protocol.",
        "Check that the address is a kms_fast host and that both run compatible versions.",
    ),
    (
        0xE04B000B,
        "KEY_FILE_LOCKED",
        "The passphrase or key file does not open this private key.",
        "Give the passphrase or key file with which the key was made.",
    ),
    (
        0xE04B000C,
        "VERSION_WENT_BACK",
        "The file is older than the one already installed.",
        "Take the newest file from the publisher.",
    ),
    (
        0xE04B000D,
        "COMMAND_INVALID",
        "The command line is not understood, or a value on it is wrong.",
        "Correct the command; kms-fast COMMAND --help has examples.",
    ),
    (0xE04B000E, "INTERRUPTED", "The command was stopped before it was done.", "Run it again when it suits."),
    (
        0xE04B000F,
        "STORE_UNAVAILABLE",
        "The shared store of counts and inventory cannot be reached, or does not do what a host needs of it.",
        "Start the database server, and check its address, its rights and the settings named here.",
    ),
    (0xE04B0010, "ANSWER_MALFORMED", "The answer is damaged or of another version.", "SEE_HOST"),
    (0xE04B0011, "ANSWER_UNREADABLE", "The answer does not belong to this request.", "SEE_HOST"),
    (0xE04B0012, "REQUEST_HASH_MISMATCH", "The answer is for another request.", "SEE_HOST"),
    (0xE04B0013, "SKU_MISMATCH", "The answer is for another product.", "SEE_HOST"),
    (0xE04B0014, "CMID_MISMATCH", "The answer is for another machine.", "SEE_HOST"),
    (0xE04B0015, "HARDWARE_MISMATCH", "The answer is for other hardware.", "SEE_HOST"),
    (
        0xE04B0020,
        "ROOT_UNKNOWN",
        "The host was certified under a root key that this product does not trust.",
        "SEE_HOST",
    ),
    (0xE04B0021, "ISSUER_SIGNATURE", "The issuer's certificate is not signed by the publisher's root key.", "SEE_HOST"),
    (0xE04B0022, "ISSUER_RIGHTS", "The issuer may not certify hosts of this publisher.", "SEE_HOST"),
    (0xE04B0023, "ISSUER_DATES", "The issuer's certificate was not valid when the answer was signed.", "RENEW"),
    (
        0xE04B0024,
        "CERTIFICATE_SIGNATURE",
        "The host's certificate is not signed by the publisher's issuer.",
        "SEE_HOST",
    ),
    (
        0xE04B0025,
        "CERTIFICATE_KIND",
        "The host's certificate is not one for hosts of this publisher and customer.",
        "SEE_HOST",
    ),
    (0xE04B0026, "CERTIFICATE_DATES", "The host's certificate was not valid when the answer was signed.", "RENEW"),
    (
        0xE04B0027,
        "FAMILY_NOT_CERTIFIED",
        "The host granted a product of a family that it is not certified for.",
        "SEE_HOST",
    ),
    (
        0xE04B0028,
        "GENERATION_NOT_CERTIFIED",
        "The host granted a product generation that it is not certified for.",
        "SEE_HOST",
    ),
    (
        0xE04B0029,
        "CERTIFICATE_REVOKED",
        "The publisher has revoked the host's certificate.",
        "Do not use this host. Its administrator asks the publisher for a new certificate, of another private key.",
    ),
    (
        0xE04B002A,
        "HEADER_HOST_MISMATCH",
        "The batch was signed for another host than its certificate names.",
        "SEE_HOST",
    ),
    (0xE04B002B, "BATCH_SIGNATURE", "The batch is not signed by the certified host.", "SEE_HOST"),
    (0xE04B002C, "NOT_INCLUDED", "The answer is not part of the signed batch.", "SEE_HOST"),
    (0xE04B002D, "COUNT_OUT_OF_BOUNDS", "The host granted although its count is below the threshold.", "SEE_HOST"),
    (0xE04B002E, "THRESHOLD_OUT_OF_BOUNDS", "The host used a lower threshold than it is certified for.", "SEE_HOST"),
    (0xE04B002F, "VALIDITY_OUT_OF_BOUNDS", "The host granted a longer validity than it is certified for.", "SEE_HOST"),
    (
        0xE04B0030,
        "ANSWER_TIME",
        "The answer was signed more than 4 hours away from this machine's clock.",
        "Correct the clock that is wrong, this machine's or the host's; let both follow NTP.",
    ),
    (
        0xE04B0031,
        "CLOCK_SET_BACK",
        "This machine's clock or the host's is more than 8 hours before an activation already received.",
        "Correct the clock; if the earlier activation was made with a wrong clock, rearm: kms-fast client rearm.",
    ),
    (
        0xE04B0040,
        "STORE_VERSION",
        "The store's tables are of another version than this program's.",
        "Stop older hosts, then run kms-fast store migrate. Tables that are newer need a newer program.",
    ),
    (
        0xE04B0041,
        "LEDGER_WENT_BACK",
        "This host's ledger is older than what is known of it elsewhere: an older copy of it was put back.",
        "Put the newest copy back. If what it lacks is lost, accept that: kms-fast serve --accept-rollback.",
    ),
    (
        0xE04B0042,
        "PROCESS_FAILED",
        "A process of the host ended although nobody told it to.",
        "See what it said in the log before it ended; after a traceback or a signal, report it with that log.",
    ),
    (
        0xE04B0043,
        "HOST_NOT_RUNNING",
        "No host runs in this home.",
        "Name its home with --home, or start it: kms-fast serve.",
    ),
    (
        0xE04B0044,
        "BACKUP_DAMAGED",
        "The file is no whole backup, or not one of what is restored here.",
        "Copy it again from where it was made, or take an earlier backup. Nothing was restored.",
    ),
    (
        0xE04B0045,
        "STORE_DAMAGED",
        "The store, or a backup of one, holds what cannot be right.",
        "Stop the hosts, keep a copy, and restore the newest good backup into an empty store: kms-fast store restore.",
    ),
    (
        0xE04B0046,
        "STORE_IN_USE",
        "The store is used by others, or filled already, so this was not done or not wholly.",
        "Run it again later, when the others are done; a restore needs a store that is empty and that nobody uses.",
    ),
    (
        0xE04B0047,
        "RECORDER_BEHIND",
        "The recorder has not taken up all of the ledger that this command needs in the inventory.",
        "Run it again later. If the host's log says that a segment is not recorded any further, stop the host first.",
    ),
    (
        0xE04B0048,
        "MACHINE_UNKNOWN",
        "No machine with this CMID is known here.",
        "Look for it by its name: kms-fast inventory list --name. One that asked just now may not be recorded yet.",
    ),
    (
        0xE04B0049,
        "STORE_REFUSED",
        "The database refused what a host asked of it, and would refuse it again.",
        (
            "Undo what was changed by hand in the schema kms_fast: constraints, triggers, columns, rights. "
            "If nothing was, report it with the SQLSTATE. What is not recorded yet stays in the ledger."
        ),
    ),
    (
        0xE04B004A,
        "STORE_EMPTY",
        "The database has no tables of kms_fast yet.",
        "Make them with kms-fast store migrate, as the role that is to own them; then start the host again.",
    ),
    (
        0xE04B004B,
        "HOST_RUNNING",
        "A host runs in this home, and this can only be done while none does.",
        "Stop it (kill -TERM to its process, or systemctl stop kms-fast), then run the command again.",
    ),
    (
        0xE04B0050,
        "CLIENT_RUNNING",
        "The client's service of this home runs already.",
        "One is enough for all products of a home. To start another, stop that process, or name another home.",
    ),
    (
        0xE04B0051,
        "CATALOG_FILE_NEEDED",
        "An answer as text or QR code names a catalog and a publisher file, and this host does not have them yet.",
        "Get the file that kms-fast publisher certify --catalog writes, and give it: kms-fast host apply --catalog.",
    ),
    (
        0xE04B0052,
        "REARMS_USED_UP",
        "This installation was made a new machine as often as it may be.",
        "Go on with the machine ID it has. Where another one is needed, install the key in a new home (--home).",
    ),
    (
        0xE04B0060,
        "DNS_UPDATE_REFUSED",
        "The name server does not let this key, or this machine, change the record set.",
        "Allow it in the zone's policy (docs/dns.md has samples), or make the change named here by hand.",
    ),
    (
        0xE04B0061,
        "DNS_KEY_REFUSED",
        "The name server does not accept the TSIG key, or its answer is not signed by it.",
        (
            "Compare name, algorithm and secret of the key file with those in the name server's configuration, "
            "and see that the zone's policy lets the key change this name."
        ),
    ),
    (
        0xE04B0062,
        "DNS_CLOCKS_DIFFER",
        "The clocks of this machine and of the name server differ by more than TSIG allows, usually 5 minutes.",
        "Correct the clock that is wrong; let both follow NTP.",
    ),
    (
        0xE04B0063,
        "DNS_ZONE_NOT_FOUND",
        "No name server was found that is responsible for the domain and takes changes of its zone.",
        "Check the domain, and name the zone's primary server: dns_server. Or make the change named here by hand.",
    ),
    (
        0xE04B0064,
        "DNS_SET_CHANGED",
        "The record set changed each time between being looked at and being written.",
        "Run the command again; if that does not help, see who else changes the set.",
    ),
    (
        0xE04B0065,
        "DNS_SERVER_FAILED",
        "The name server failed, or does not know dynamic updates.",
        "See the name server's log, or make the change named here by hand.",
    ),
    (
        0xE04B0066,
        "DNS_SERVER_UNREACHABLE",
        "The name server does not answer over TCP.",
        "Check that it runs and TCP port 53 is open, or name another: dns_server. Or make the named change by hand.",
    ),
    (
        0xE04B0067,
        "DNS_SET_FOREIGN",
        "The record set names a server that is no kms_fast host: its clients would be sent to this host too.",
        "Give the publisher's hosts a service name of their own; in a lab, kms-fast host publish-dns --share.",
    ),
    (
        0xE04B0068,
        "DNS_TARGET_INVALID",
        "Clients could not reach this host by the name that would be published.",
        "Give the machine a full name with an address in DNS, or say by which name clients reach it: dns_target.",
    ),
    (
        0xE04B0069,
        "DNS_RECORDS_WRONG",
        "A record of the set leads clients to no host of this publisher.",
        "See the cure of each record that is listed.",
    ),
    (
        0xE04B006A,
        "CHECK_FAILED",
        "Something that activation needs does not work.",
        "See each check that failed and what it says to do, from the first one on.",
    ),
    (
        0xE04B006B,
        "KEY_DISABLED",
        "The publisher has disabled this key: it activates nothing any more.",
        "Ask the publisher for another key; on a host then: kms-fast host activate --key KEY.",
    ),
    (
        0xE04B006C,
        "EXPORT_DUE",
        "The publisher's file is not exported yet, or older than its catalog and revocations; hosts wait for it.",
        "At the publisher: kms-fast publisher export. On a host: ask the publisher to do so, then try again.",
    ),
    (
        0xE04B006D,
        "TOO_MANY_REQUESTS",
        "This address or this key asked too often.",
        "Wait as long as is said here, then try again; look for a host or a script that asks over and over.",
    ),
    (
        0xE04B006E,
        "PUBLISHER_FAILED",
        "Something is wrong at the publisher, so its activation service activates nothing now.",
        "Try again later. Tell the publisher the time of the attempt: the reason is in its service's log.",
    ),
    (
        0xE04B006F,
        "PUBLISHER_UNREACHABLE",
        "The publisher's activation service cannot be reached from here.",
        (
            "Check the address, name resolution, firewall and proxy named here. Without a way to it, use the offline "
            "exchange: kms-fast host request, publisher certify, host apply; for a machine's own activation kms-fast "
            "client request, publisher activate-machine, client apply."
        ),
    ),
    (
        0xE04B0070,
        "TLS_NOT_TRUSTED",
        "The activation service's TLS certificate is not trusted on this machine.",
        (
            "Name the file of the authority that signed it (--ca, or activation_ca in a host's settings), ask under a "
            "name that it is for, and check this machine's clock; a proxy that opens TLS has an authority of its own."
        ),
    ),
    (
        0xE04B0071,
        "NO_ACTIVATION_SERVICE",
        "What answers at this address is not an activation service, or not the way it should.",
        "Check the address: that of the publisher file, or --url, is the one that /v1/host-requests is put behind.",
    ),
    (
        0xE04B0072,
        "PASSPHRASE_MISSING",
        "The publisher's private keys are encrypted, and this command needs their passphrase.",
        "Give it in one of the ways named here, or run the command in a terminal, which asks for it.",
    ),
    (
        0xE04B0073,
        "HARDWARE_UNKNOWN",
        "Nothing tells this machine from another one, so an activation without an end would be worth as much on each.",
        "Give it a machine ID (systemd-machine-id-setup), or activate it by a host: kms-fast client activate.",
    ),
)

_CURES = {
    "SEE_HOST": "Do not trust this host: check the address, what runs there, and which publisher certified it.",
    "RENEW": "On the host: kms-fast host renew, or without internet host request, publisher certify, host apply.",
}

RESULTS: dict[int, Result] = {
    code: Result(code, name, meaning, _CURES.get(cure, cure)) for code, name, meaning, cure in _ROWS
}
BY_NAME: dict[str, Result] = {result.name: result for result in RESULTS.values()}


def find_result(code: int) -> Result:
    """The table's row for ``code``; for a code the table lacks, a row that says so."""
    return RESULTS.get(code) or Result(
        code, "UNKNOWN", "A result that this version does not know.", "Update kms_fast, or ask whoever runs the host."
    )
