"""Golden bytes: the format on the wire, pinned.

Where one of these fails the protocol has changed: nodes of the two releases no longer understand each other, so
seal.VERSION must be raised together with the bytes here.
"""

from __future__ import annotations

import pytest

from koi.core.messages import DATAGRAMS, Fenced, Heartbeat, Hello, Last, Ledger, Report, Request, Resign, ServiceInfo
from koi.wire.codec import decode, encode
from koi.wire.seal import VERSION, Given, Opener, Sealer, cluster_key
from tests.wire.conftest import Credulous
from tests.wire.wire_strategies import example

KEY, CLUSTER, BOOT = bytes(range(32)), 13, bytes(range(16))
HERE = ("10.0.0.1", 42012)

FULL = [
    Heartbeat(5, 12, -1, (5, 17), Ledger(7, "b", True, "c", True, "maintenance", ("d",), Fenced("a", "0a", 6), ("id",), "ü"), 9),
    Report("b", "0b", 3, ("0a",), 7, 6, True, services=(
        ServiceInfo("vip", 10, "Promoted", "status", False, 4711, Last("status", -9, 0.25)), ServiceInfo("web", None, "Failed"),
    ), acknowledged=(5, 17), failed_ago=1.5, warnings=("slow disk",)),
    Request("1f", "promote", (("node", "b"), ("force", True), ("wait", 1.5), ("n", -3), ("reason", None))),
]

BODIES = [
    '["Election","a",[1,1]]',
    '["Answer","a",[1]]',
    '["Vote","a",[1,"candidate",[1,1],[1,null,false,null,false,null,[],null,[],"reason",null],1]]',
    '["Nack","a",[1]]',
    '["Heartbeat","a",[1,1,1,[1,1],[1,null,false,null,false,null,[],null,[],"reason",null],1,"config"]]',
    '["Ack","a",[1,1,1,[1,1],null,"config",[],null,null]]',
    '["Challenge","a",[1,1,1]]',
    '["Resign","a",[1]]',
    '["Hello","a",["nonce",1]]',
    '["Known","a",["nonce",1,false,1,[1,1],[1,null,false,null,false,null,[],null,[],"reason",null],1]]',
    '["Report","a",["name","boot",1,[],null,null,false,"why","state","mode",1,0.5,1,false,null,1,null,false,false,n'
    'ull,null,1,"release","config","digest",null,[],false]]',
    '["Vouch","a",[1,[1,1],"boot",1,0.5,0.5,false,null,null,"digest"]]',
    '["State","a",["boot",1,[1,1],null,null,1,false,null,false,false,"digest"]]',
    '["Request","a",["id","command",[]]]',
    '["Response","a",["id","answer",1,1,"text"]]',
    '["Heartbeat","a",[5,12,-1,[5,17],[7,"b",true,"c",true,"maintenance",["d"],["a","0a",6],["id"],"ü",null],9,""]]',
    '["Report","a",["b","0b",3,["0a"],7,6,true,"","Stopped","active",0,0.0,0,false,1.5,0,null,false,false,[5,17],nu'
    'll,0,"","","",[["vip",10,"Promoted","status",false,4711,["status",-9,0.25]],'
    '["web",null,"Failed",null,false,null,null]],["slow disk"],false]]',
    '["Request","a",["1f","promote",[["node","b"],["force",true],["wait",1.5],["n",-3],["reason",null]]]]',
]

SEALED = {
    b"":
        "6b6f69010000000d000102030405060708090a0b0c0d0e0f00000000000000010000000000000000447f5da90a06b1bc4482df0b27123dd0",
    b'["Resign","a",[7]]':
        "6b6f69010000000d000102030405060708090a0b0c0d0e0f00000000000000020000000000000000"
        "10c2ca6219a0dd1f395bd15c93e62260c4f849d047bef4700394bb56afad1860e98f",
}

COOKIE = (
    "6b6f63010000000d000102030405060708090a0b0c0d0e0f0000000000000001636f6f6b69652121"
    "30a291f66ec5081482bc822e464c08f51fc57f53802a830d"
)


@pytest.mark.parametrize(("message", "body"), list(zip([*map(example, DATAGRAMS), *FULL], BODIES, strict=True)))
def test_bodies(message: object, body: str) -> None:
    assert encode("a", message).decode() == body
    assert decode(body.encode()) == ("a", message)


def test_a_deflated_body() -> None:
    """Deflate libraries differ in what they write, never in what they read."""
    data = bytes.fromhex("480d8b56f248cdc9c957d2514a54d289564a4c4a1e45448680928e616c2c00c0b4781f")
    assert decode(data) == ("a", Hello("abc" * 100, 1))


def test_sealed_datagrams() -> None:
    sealer, opener = Sealer(KEY, CLUSTER, BOOT), Credulous(KEY, CLUSTER)
    for body, datagram in SEALED.items():
        assert sealer.seal(body).hex() == datagram
        assert opener.open(bytes.fromhex(datagram), HERE).body == body
    assert decode(body) == ("a", Resign(7))
    assert VERSION == 1


def test_a_cookie_datagram() -> None:
    asked = bytes(range(16, 32))
    datagram = Sealer(KEY, CLUSTER, BOOT).seal_cookie(b"cookie!!", asked, 258)
    assert datagram.hex() == COOKIE
    assert Opener(KEY, CLUSTER).open_cookie(datagram, asked) == Given(BOOT, 1, 258, b"cookie!!")


def test_the_cluster_key() -> None:
    assert cluster_key("secret", 13).hex() == "2a985a2f0bef24b7428ab88df0df676beb800ea6326867e255d93a4d9e1cf657"
