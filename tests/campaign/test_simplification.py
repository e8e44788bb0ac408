"""Simpler variants of operations."""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from tests.trace.vocabulary import operations

from qbprop.campaign.simplification import merge, simpler, simplify
from qbprop.records import operation_to_record
from qbprop_model.operations import (
    BITMAPS,
    AddDisk,
    BitmapAdd,
    BitmapDisable,
    BitmapMerge,
    Layer,
    MergeSource,
    Operation,
    Pattern,
    Transaction,
    Write,
)


def size_of(operation: Operation) -> int:
    return len(str(operation_to_record(operation)))


def test_all_that_does_not_matter_goes() -> None:
    patterns = (Pattern(offset=512, length=99, stamp=7), Pattern(offset=0, length=4096, fill=3))
    disk = AddDisk(
        node="drive0",
        layers=(Layer(size=1_024_000, cluster_size=512, data=patterns), Layer(size=512)),
        drive="device0",
        discard="unmap",
    )
    add = BitmapAdd(node="drive0", name="bitmap0", granularity=4096, disabled=True)
    write = Write(node="drive0", offset=70_000, length=3000, stamp=999)

    def shows(trial: tuple[Operation, ...]) -> bool:
        match trial:
            case (AddDisk(layers=(Layer(data=(*_, Pattern(length=length))), *_)), a, Write()):
                return length > 1000 and a.disabled  # type: ignore[attr-defined]
        return False

    assert simplify((disk, add, write), shows, lambda: False) == (
        AddDisk(
            node="drive0",
            layers=(Layer(size=0, format="raw", data=(Pattern(offset=0, length=1024, fill=3),)),),
        ),
        BitmapAdd(node="drive0", name="bitmap0", disabled=True),
        Write(node="drive0", offset=0, length=0, fill=999 % 255 + 1),
    )


def test_actions_of_a_transaction_are_dropped_and_simplified() -> None:
    add = BitmapAdd(node="drive0", name="bitmap0", granularity=4096)
    other = BitmapAdd(node="drive1", name="bitmap1")
    transaction = Transaction(actions=(other, add, other), grouped=True)

    def shows(trial: tuple[Operation, ...]) -> bool:
        return any(a.node == "drive0" for a in trial[0].actions)  # type: ignore[attr-defined]

    assert simplify((transaction,), shows, lambda: False) == (
        Transaction(actions=(BitmapAdd(node="drive0", name="bitmap0"),)),
    )


def test_neighbours_become_one_where_one_operation_does() -> None:
    first = Write(node="drive0", offset=512, length=512, fill=1)
    second = Write(node="drive0", offset=2048, length=512, fill=1)
    add = BitmapAdd(node="drive0", name="bitmap0")
    disable = BitmapDisable(node="drive0", name="bitmap0")
    assert merge(first, second) == Write(node="drive0", offset=512, length=2048, fill=1)
    assert merge(add, disable) == BitmapAdd(node="drive0", name="bitmap0", disabled=True)
    assert merge(first, Write(node="drive1", offset=0, length=512, fill=1)) is None
    assert merge(first, replace(first, offset=1 << 40)) is None
    assert merge(add, BitmapDisable(node="drive0", name="bitmap1")) is None
    assert merge(add, first) is None


def test_odd_names_are_replaced_everywhere_unless_the_simpler_one_is_taken() -> None:
    odd = BITMAPS[-1]
    add = BitmapAdd(node="drive0", name=odd)
    other = BitmapAdd(node="drive0", name="bitmap0")
    merged = BitmapMerge(node="drive0", target="bitmap0", sources=(MergeSource(name=odd),))
    simplest = simplify((add, other, merged), lambda t: len(t[2].sources) == 1, lambda: False)  # type: ignore[attr-defined]
    assert simplest[0] == BitmapAdd(node="drive0", name="bitmap1")
    assert simplest[2].sources == (MergeSource(name="bitmap1"),)  # type: ignore[attr-defined]


def test_an_expired_time_changes_nothing() -> None:
    write = Write(node="drive0", offset=70_000, length=3000, stamp=999)
    assert simplify((write,), lambda _: True, lambda: True) == (write,)


@given(operations())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_simplifying_comes_to_an_end(operation: Operation) -> None:
    (simplest,) = simplify((operation,), lambda _: True, lambda: False)
    assert next(simpler(simplest), None) is None
    assert type(simplest) is type(operation)


def test_a_raw_image_is_simpler_than_one_in_qcow2() -> None:
    disk = AddDisk(node="drive0", layers=(Layer(size=512, cluster_size=4096),))
    (raw,) = simplify((disk,), lambda _: True, lambda: False)
    assert raw == AddDisk(node="drive0", layers=(Layer(size=0, format="raw"),))
    needed = simplify((disk,), lambda trial: "qcow2" in str(trial), lambda: False)
    assert needed == (AddDisk(node="drive0", layers=(Layer(size=0),)),)
