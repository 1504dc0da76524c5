"""Blocks of text and texts of codes: round trips, what is forgiven, and what is named."""

import itertools
import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kms_fast.errors import ConfigurationError
from kms_fast.model.armour import find_reference, read_armour, write_block, write_codes
from kms_fast.model.base32 import ALPHABET
from kms_fast.model.compact import Kind, pack_request, unpack_request
from kms_fast.model.exchange import HostRequest
from tests.model.test_compact import ANSWER
from tests.model.test_exchange import OTHER_SECRETS, make_request
from tests.reference import exchange as reference

REQUEST_DATA = pack_request(HostRequest.parse(make_request()))
OTHER_DATA = pack_request(HostRequest.parse(make_request(OTHER_SECRETS)))
ANSWER_DATA = ANSWER.pack()
BLOCK = write_block(REQUEST_DATA)
LINES = BLOCK.splitlines()
FORMS = [(Kind.REQUEST, REQUEST_DATA), (Kind.ANSWER, ANSWER_DATA)]

data_of_a_kind = st.tuples(st.sampled_from(Kind), st.binary(max_size=600)).map(
    lambda made: bytes([1, made[0]]) + (len(made[1]) + 4).to_bytes(2, "little") + made[1]
)


def refuse(text: str, kind: Kind = Kind.REQUEST) -> str:
    """The message with which the text is refused."""
    with pytest.raises(ConfigurationError) as caught:
        read_armour(text, kind)
    assert caught.value.result.name == "OFFLINE_DATA_MALFORMED"
    return caught.value.message


@settings(deadline=None)
@given(data_of_a_kind)
def test_blocks_are_read_back(data: bytes) -> None:
    block = write_block(data)
    assert read_armour(block, Kind(data[1])) == data
    lines = block.splitlines()[1:-1]
    assert len({len(line) for line in lines}) == 1
    assert max(map(len, block.splitlines())) <= 60


@settings(deadline=None)
@given(data_of_a_kind, st.integers(1, 12), st.randoms())
def test_codes_are_read_back_in_any_order_and_some_twice(data: bytes, count: int, order: random.Random) -> None:
    codes = write_codes(data, count)
    assert len(codes) <= count
    assert all(re.fullmatch(r"[0-9A-Z $%*+\-./:]+", code) for code in codes)
    scanned = codes + order.sample(codes, order.randint(0, len(codes)))
    order.shuffle(scanned)
    assert read_armour("\n".join(scanned), Kind(data[1])) == data


def quote(text: str) -> str:
    return "".join(f"> > {line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    "change",
    [
        str.lower,
        quote,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: text.replace("\n", " "),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.replace(" ", "\u00a0"),
        lambda text: text.replace(" ", "   "),
        lambda text: text.replace("-----", "———").replace("KMS-FAST", "KMS–FAST"),
        lambda text: text.replace("KMS-FAST", "KMS_FAST"),
        lambda text: (
            "Dear publisher,\n\nplease certify our host (1/2: urgent!):\n\n" + text + "\nKind regards\n-- \nA. N."
        ),
        lambda text: "\ufeff" + text + "\u200b",
        lambda text: f"```\n{text}\n```",
        lambda text: re.sub(r"(.{37})", r"\1\n", text) if "BEGIN" not in text else text,
        lambda text: re.sub(r"(?m)^( *\d+/.{30}) ", r"\1\n", text),
        lambda text: re.sub(r"(?m)^ +", "", text),
        lambda text: re.sub(r"(?m)^-----|-----$", "", text),
    ],
)
@pytest.mark.parametrize(("kind", "data"), FORMS)
def test_what_mail_and_word_processors_do_is_forgiven(change: Callable[[str], str], kind: Kind, data: bytes) -> None:
    assert read_armour(change(write_block(data)), kind) == data
    assert read_armour(change("\n".join(write_codes(data, 3))), kind) == data


def test_letters_that_look_like_digits_are_forgiven() -> None:
    for text, one in itertools.product((BLOCK, "\n".join(write_codes(REQUEST_DATA, 2))), "Iil"):
        lines = [line.partition(":") for line in text.splitlines()]
        read = "\n".join(head + mark + rest.replace("0", "o").replace("1", one) for head, mark, rest in lines)
        assert read != text
        assert read_armour(read, Kind.REQUEST) == REQUEST_DATA


def test_every_single_wrong_character_is_found_and_its_line_named() -> None:
    count = len(LINES) - 2
    for number in range(1, count + 1):
        line = LINES[number]
        for at in range(7, len(line)):
            if line[at] == " ":
                continue
            for other in ALPHABET.replace(line[at], "") + "U?é":
                changed = [*LINES[:number], line[:at] + other + line[at + 1 :], *LINES[number + 1 :]]
                assert f"line {number} is damaged" in refuse("\n".join(changed))


def test_every_two_neighbours_that_changed_places_are_found() -> None:
    for number in range(1, len(LINES) - 1):
        symbols = LINES[number][7:].replace(" ", "")
        for at in range(len(symbols) - 1):
            swapped = symbols[:at] + symbols[at + 1] + symbols[at] + symbols[at + 2 :]
            if swapped != symbols:
                changed = [*LINES[:number], LINES[number][:7] + swapped, *LINES[number + 1 :]]
                assert f"line {number} is damaged" in refuse("\n".join(changed))


@pytest.mark.parametrize("number", range(1, len(LINES) - 1))
def test_every_lost_doubled_longer_or_moved_line_is_named(number: int) -> None:
    line, rest = LINES[number], [*LINES[:number], *LINES[number + 1 :]]
    assert refuse("\n".join(rest)) == f"The host request is not whole: line {number} of 8 is missing."
    assert f"line {number} is there twice" in refuse("\n".join([*LINES[:number], line, *LINES[number:]]))
    assert f"line {number} is damaged" in refuse("\n".join([*LINES[:number], line + "0", *LINES[number + 1 :]]))
    assert f"line {number} is damaged" in refuse("\n".join([*LINES[:number], line[:-1], *LINES[number + 1 :]]))
    marked = [*LINES[:number], line.replace("/", ";"), *LINES[number + 1 :]]
    assert f"line {number} of 8 is missing" in refuse("\n".join(marked))
    if number < len(LINES) - 2:
        swapped = [*LINES[:number], LINES[number + 1], line, *LINES[number + 2 :]]
        assert f"line {number} comes after line {number + 1}" in refuse("\n".join(swapped))
    renumbered = [*LINES[:number], line.replace(f" {number}/", f" {number % 8 + 1}/"), *LINES[number + 1 :]]
    assert f"line {number} of 8 is missing" in refuse("\n".join(renumbered))
    assert "line 9, but they are 8" in refuse(
        "\n".join([*LINES[:number], line.replace(f"{number}/", "9/"), *rest[number:]])
    )


def test_all_wrong_lines_are_named_at_once() -> None:
    message = refuse("\n".join([LINES[0], *LINES[2:4], LINES[4][:-1], *LINES[5:]]))
    assert message == "The host request is not whole: line 4 is damaged, line 1 of 8 is missing."


@pytest.mark.parametrize("text", [BLOCK, "\n".join(write_codes(REQUEST_DATA, 3))])
def test_every_truncated_prefix_is_refused(text: str) -> None:
    # What follows the last word or character is no part of it.
    end = text.rindex("-----") if "BEGIN" in text else text.rindex(".")
    assert read_armour(text[:end], Kind.REQUEST) == REQUEST_DATA
    for size in range(end):
        refuse(text[:size])


def test_a_half_block_says_which_half() -> None:
    assert "line that begins the host request is missing" in refuse("\n".join(LINES[1:]))
    assert "the line that ends it is missing" in refuse("\n".join(LINES[:-1]))
    assert "the line that ends it is missing, line 8 of 8 is missing." in refuse("\n".join(LINES[:-2]))
    assert "lines that begin and end the block are missing" in refuse("\n".join(LINES[1:-1]))
    assert "no lines between" in refuse("\n".join([LINES[0], LINES[-1]]))
    assert "no block and no code" in refuse("Kind regards")


def test_two_of_them_are_not_guessed_between() -> None:
    assert "more than one block" in refuse(BLOCK + BLOCK)
    other = write_block(OTHER_DATA)
    message = refuse(BLOCK + other)
    assert find_reference(REQUEST_DATA) in message
    assert find_reference(OTHER_DATA) in message
    assert "a block and codes" in refuse(BLOCK + "\n".join(write_codes(REQUEST_DATA)))
    assert "more than one code" in refuse("\n".join([*write_codes(REQUEST_DATA, 2), *write_codes(OTHER_DATA, 2)]))
    assert "counted differently" in refuse("\n".join([*write_codes(REQUEST_DATA, 2), *write_codes(REQUEST_DATA, 3)]))


@pytest.mark.parametrize("write", [write_block, lambda data: "\n".join(write_codes(data, 2))])
def test_the_other_kind_is_named(write: Callable[[bytes], str]) -> None:
    assert refuse(write(ANSWER_DATA)) == "This is a host answer, but a host request belongs here."
    assert refuse(write(REQUEST_DATA), Kind.ANSWER) == "This is a host request, but a host answer belongs here."


@pytest.mark.parametrize("write", [write_block, lambda data: "\n".join(write_codes(data, 2))])
def test_an_answer_is_found_beside_the_request_that_it_answers(write: Callable[[bytes], str]) -> None:
    thread = f"Here you are.\n{write(ANSWER_DATA)}\nYou wrote:\n{quote(BLOCK)}"
    assert read_armour(thread, Kind.ANSWER) == ANSWER_DATA
    assert read_armour(thread, Kind.REQUEST) == REQUEST_DATA
    assert read_armour(quote(write(REQUEST_DATA)) + BLOCK.replace("REQUEST", "ANSWER"), Kind.REQUEST) == REQUEST_DATA


def test_lines_of_two_requests_do_not_mix() -> None:
    others = write_block(OTHER_DATA).splitlines()
    mixed = "\n".join([*LINES[:4], *others[4:-1], LINES[-1]])
    assert "do not belong together" in refuse(mixed)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_every_lost_or_damaged_code_is_named(number: int) -> None:
    codes = write_codes(REQUEST_DATA, 3)
    lost = codes[: number - 1] + codes[number:]
    assert refuse("\n".join(lost)) == f"The host request is not whole: code {number} of 3 is missing."
    code = codes[number - 1]
    start = code.index(":") + 1
    for at in range(start, len(code) - 1):
        other = ALPHABET[(ALPHABET.index(code[at]) + 7) % 32]
        damaged = code[:at] + other + code[at + 1 :]
        assert f"code {number} is damaged" in refuse("\n".join([*lost, damaged]))
        assert f"code {number} is damaged" in refuse("\n".join([*codes, damaged]))
    assert f"code {number} is damaged" in refuse("\n".join([code[:-10], *lost]))


@pytest.mark.parametrize(
    "text",
    [
        "-" * 1_000_000,
        "1/8:" * 250_000,
        BLOCK[:-1] * 2_000,
        "\n".join(write_codes(REQUEST_DATA, 3) * 3_000),
        "\n".join(f"KMS-FAST HOST REQUEST AAAAA {n % 100}/99:{'0' * 40}." for n in range(12_000)),
        "KMS-FAST HOST REQUEST AAAAA 1/1:" + "0" * 1_000_000 + ".",
        "KMS-FAST HOST " * 70_000,
        "BEGIN KMS-FAST HOST REQUEST AAAAA 1/99:" + "0 " * 500_000,
        "\0" * 100_000,
        "ﷺ" * 100_000,
    ],
    ids=range(10),
)
def test_hostile_text_is_refused_in_bounded_work(text: str) -> None:
    if "AAAAA" not in text and text.startswith("KMS-FAST HOST REQUEST"):
        assert read_armour(text, Kind.REQUEST) == REQUEST_DATA
    else:
        refuse(text)


@settings(deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_refused(text: str) -> None:
    refuse(text)
    refuse(f"-----BEGIN KMS-FAST HOST REQUEST 7K3QZ-----\n1/2: {text}\n-----END KMS-FAST HOST REQUEST 7K3QZ-----")


def forge(name: str, *parts: str) -> str:
    """Codes with right checks, whatever they hold; ``name`` as the second implementation has it."""
    kind = name.split()[2]
    return " ".join(
        f"{name} {number}/{len(parts)}:{part}{reference.check(f'{kind} {number}/{len(parts)}:{part}')}."
        for number, part in enumerate(parts, 1)
    )


def test_right_checks_do_not_save_what_does_not_belong_together() -> None:
    name, symbols = reference.name(REQUEST_DATA), reference.spell(REQUEST_DATA)
    assert read_armour(forge(name, symbols), Kind.REQUEST) == REQUEST_DATA
    assert read_armour(forge(name, symbols + "0000"), Kind.REQUEST) == REQUEST_DATA
    other_name = name[:-1] + ("0" if name[-1] != "0" else "1")
    for wrong in (
        forge(name, symbols + "0001"),
        forge(name, symbols, "0" * len(symbols)),
        forge(name, symbols[:-1]),
        forge(other_name, symbols),
    ):
        assert "do not belong together" in refuse(wrong)
    assert "longer than any" in refuse(forge(name, symbols.ljust(2049, "0")))
    assert "too short" in refuse(forge(name, "04"))
    assert "update kms_fast" in refuse(forge(name, reference.spell(b"\2" + REQUEST_DATA[1:])))


def test_a_name_does_not_decide_what_kind_it_is() -> None:
    name = reference.name(ANSWER_DATA).replace("ANSWER", "REQUEST")
    read = read_armour(forge(name, reference.spell(ANSWER_DATA)), Kind.REQUEST)
    with pytest.raises(ConfigurationError, match="This is a host answer, but"):
        unpack_request(read)
