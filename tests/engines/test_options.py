"""Addresses and options: what is wrong is said at once, before anything is connected."""

from __future__ import annotations

import pytest

import walsvc
from walsvc import BadOption, WalConfig
from walsvc.engines.jetstream.checks import DEMANDS, check_config, new_stream, sync_of
from walsvc.engines.jetstream.options import JetStreamOptions, parse_url, split_options
from walsvc.engines.jetstream.stream import Stream
from walsvc.errors import PathError


def test_address_with_everything():
    address = parse_url("nats://me:s%40cret@h1,h2:4333,[::1]:4222/orders")
    assert address.servers == ("nats://h1:4222", "nats://h2:4333", "nats://[::1]:4222")
    assert (address.stream, address.user, address.password) == ("orders", "me", "s@cret")
    assert address.hosts == ("h1", "h2", "[::1]")
    assert "cret" not in str(address)


@pytest.mark.parametrize(
    "url",
    [
        "nats://h1",
        "nats://h1/",
        "nats://h1/a.b",
        "nats://h1/a/b",
        "nats:///s",
        "nats://h1,/s",
        "nats://h1:x/s",
        "nats://h1:99999/s",
    ],
)
def test_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(BadOption) as caught:
        walsvc.open(url)
    assert caught.value.hint


@pytest.mark.parametrize(
    "options",
    [{"replicas": 1}, {"replicas": 7}, {"timeout": 0.5}, {"allow_unsynced": 1}, {"namespace": "a"}, {"nonsense": 1}],
)
def test_options_out_of_bounds_are_refused_at_once(options):
    with pytest.raises(BadOption):
        walsvc.open("nats://h1/stream", **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"disk": "threads"}, "no disk of this machine"),
        ({"direct": False}, "the servers write"),
        ({"reading": "mapped"}, "no files of this machine"),
        ({"double_write": "direct"}, "ever torn"),
        ({"layout": "pack", "double_write": "direct"}, "means nothing"),
        ({"layout": "pack", "read_only": True}, "packing would save nothing"),
        ({"replicate": "nats://h1/other"}, "has its replicas"),
    ],
)
def test_options_of_a_directory_are_refused_with_the_reason(options, says):
    with pytest.raises(BadOption, match=says) as caught:
        walsvc.open("nats://h1/stream", **options)
    assert caught.value.hint
    with pytest.raises(BadOption, match="means nothing"):
        walsvc.open("nats://h1/stream", config=WalConfig(**options))


def test_what_the_environment_says_of_disks_is_not_meant(monkeypatch):
    monkeypatch.setenv("WALSVC_DISK", "threads")
    whole, _ = split_options(None, {"disk": "auto", "double_write": "off", "reading": "direct", "replicas": 5})
    assert whole.double_write == "off"


class Unconnected(Stream):
    def __init__(self) -> None:
        self.name, self.path = "orders", "nats://h1:4222/orders"


WRONG = {
    "storage": "memory",
    "retention": "interest",
    "discard": "old",
    "max_age": 3_600_000_000_000,
    "max_msgs": 100,
    "max_msgs_per_subject": 5,
    "max_msg_size": 4096,
    "allow_direct": False,
    "deny_purge": True,
    "no_ack": True,
    "sealed": True,
    "allow_rollup_hdrs": True,
    "allow_msg_ttl": True,
    "persist_mode": "async",
    "mirror": {"name": "other"},
    "sources": [{"name": "other"}],
}


@pytest.mark.parametrize("name", [demand[0] for demand in DEMANDS])
def test_stream_that_would_lose_records_is_refused_with_the_change_that_helps(name):
    stream = Unconnected()
    config = new_stream(stream, 3)
    check_config(stream, config)
    with pytest.raises(PathError) as caught:
        check_config(stream, config | {name: WRONG[name]})
    assert name in str(caught.value)
    assert caught.value.hint


def test_stream_of_somebody_else_is_refused():
    stream = Unconnected()
    with pytest.raises(PathError, match="not made for a log"):
        check_config(stream, new_stream(stream, 3) | {"subjects": ["orders.>"]})


def test_defaults_demand_a_quorum_of_syncing_servers():
    assert JetStreamOptions().replicas == 3
    assert not JetStreamOptions().allow_unsynced


def test_what_a_server_says_of_its_syncs():
    assert sync_of(None) is None
    assert sync_of({"server_name": "a"}) is None
    assert sync_of({"server_name": "a", "jetstream": {"config": {"sync_interval": 120}}}) == ("a", False)
    assert sync_of({"server_name": "a", "jetstream": {"config": {"sync_always": True}}}) == ("a", True)
