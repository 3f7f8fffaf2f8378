"""The table of methods: what client, server and document make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from walsvc import BadOption
from walsvc.service.server.auth import Grant, Tokens
from walsvc.service.server.verbs import IN_PARTS, OF_A_CONSUMER, OF_A_WORKER, OF_SEVERAL, OF_THE_LOG
from walsvc.service.wire.frames import Call, Error, Open
from walsvc.service.wire.methods import METHODS, RIGHTS, STREAMS

from .raw import Raw
from .simulated import serving

PROTOCOL = Path(__file__).parents[2] / "docs" / "PROTOCOL.md"
SAMPLES = {int: 1, str: "name", dict: {}, bool: False, list: [], float: 0.5}


def test_server_answers_each_method_of_the_table_and_no_other() -> None:
    answered = [*OF_THE_LOG, *OF_A_CONSUMER, *OF_A_WORKER, *OF_SEVERAL, *IN_PARTS]
    assert sorted(METHODS) == sorted(answered)
    assert {each.right for each in (*METHODS.values(), *STREAMS.values())} <= RIGHTS


def test_document_lists_each_method_with_its_right_and_arguments() -> None:
    rows = PROTOCOL.read_text().split("## Methods of CALL")[1].split("\n\n")[1]
    found = {}
    for right, methods in re.findall(r"\| (\w+) \| (.*?)(?:; also .*)? \|", rows):
        for name, args in re.findall(r"([a-z_.]+)(?:\((.*?)\))?(?:, |$)", methods):
            found[name] = (right, {each.split(":")[0] for each in args.split(", ") if each})
    assert found == {each.name: (each.right, set(each.arguments)) for each in METHODS.values()}


@pytest.mark.parametrize("method", [*METHODS.values(), *STREAMS.values()], ids=lambda method: method.name)
def test_arguments_are_checked_by_the_table(method) -> None:
    good = {name: SAMPLES[kinds[0]] for name, (kinds, _) in method.arguments.items() if kinds[0] in SAMPLES}
    assert method.checked(good).keys() == method.arguments.keys()
    with pytest.raises(BadOption, match="has no argument 'other'"):
        method.checked({**good, "other": 1})
    for name in method.arguments:
        with pytest.raises(BadOption, match=f"{name} of {method.name} cannot be bytes"):
            method.checked({**good, name: b""})


def test_a_map_is_taken_for_rows_in_parts_only_where_rows_are_due() -> None:
    parts = {"parts": [["a"], ["b"]]}
    assert METHODS["purge_lsns"].checked({"lsns": parts})["lsns"] == ["a", "b"]
    assert METHODS["purge"].checked({"labels": parts})["labels"] == parts
    assert STREAMS["read"].checked({"where": parts})["where"] == parts


async def test_each_method_is_refused_without_its_right(tmp_path) -> None:
    rights = sorted(RIGHTS)
    tokens = Tokens([(f"{right:->16}", Grant(right, RIGHTS - {right})) for right in rights])
    async with serving(tmp_path, tokens=tokens) as server:
        for right in rights:
            async with await Raw.welcomed(server, f"{right:->16}") as raw:
                for each in METHODS.values():
                    if each.right == right:
                        raw.send(Call(5, each.name, {}))
                        error = await raw.expect(Error, 5)
                        assert (error.code, error.fields["hint"]) == ("Denied", f'it needs the right "{right}"')
                for each in STREAMS.values():
                    if each.right == right:
                        raw.send(Open(5, each.name, {}, 1))
                        assert (await raw.expect(Error, 5)).code == "Denied"
