"""A cluster of our own starts without what nobody asked for, and is noticed as soon as it runs."""

import ray._raylet
from ray._private import services
from ray._private.node import Node

from cluster import connect

THIS, OTHER = (bytes([number]) * 28 for number in (1, 2))
LEFT_OUT = ("start_api_server", "start_monitor", "start_log_monitor")


def test_a_new_host_is_looked_for_until_it_is_there_and_then_asked_of_ray(monkeypatch):
    looks, waited = [{}, {OTHER: "info"}, {OTHER: "info", THIS: "info"}], []

    class Client:
        def __init__(self, address):
            assert address == "here:1"

        def get_all_node_info(self, timeout):
            assert timeout > 0
            return looks.pop(0)

    monkeypatch.setattr(ray._raylet, "GcsClient", Client)
    monkeypatch.setattr(services, "get_node", lambda address, node: f"{node} at {address}")
    monkeypatch.setattr(connect.time, "sleep", waited.append)
    with connect._nothing_but_trials():
        assert services.get_node("here:1", THIS.hex()) == f"{THIS.hex()} at here:1"
    assert looks == []
    assert waited == [connect.LOOK_SECONDS] * 2


def test_what_is_left_out_is_back_afterwards(monkeypatch):
    parts = {name: getattr(Node, name) for name in LEFT_OUT}
    get_node = services.get_node
    with connect._nothing_but_trials():
        for name, part in parts.items():
            assert getattr(Node, name) is not part
            assert getattr(Node, name)(None) is None
        assert services.get_node is not get_node
    assert {name: getattr(Node, name) for name in LEFT_OUT} == parts
    assert services.get_node is get_node
