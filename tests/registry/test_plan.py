from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cacheproxy.core.blob import Span
from cacheproxy.registry.plan import NEAR, STEP, Claim, Demand, Plan

MIB = 1 << 20
SIZE = 64 * MIB


def claim_of(
    plan: Plan, *demands: Demand, whole: bool = True, piece: int | None = None, split: bool = False
) -> tuple[int, int] | None:
    claim = plan.next(demands, whole=whole, piece=piece, split=split)
    return None if claim is None else (claim.position, claim.stop)


def wants(offset: int, stop: int = SIZE, *, bounded: bool = False) -> Demand:
    return Demand(offset, Span(offset, stop, bounded=bounded))


def test_whole_blob_is_one_claim() -> None:
    assert claim_of(Plan(SIZE, ())) == (0, SIZE)


def test_nothing_is_claimed_twice() -> None:
    plan = Plan(SIZE, ())
    claim_of(plan)
    assert claim_of(plan) is None


def test_pieces_follow_one_another() -> None:
    plan = Plan(SIZE, ())
    assert [claim_of(plan, piece=16 * MIB) for _ in range(5)] == [
        (0, 16 * MIB),
        (16 * MIB, 32 * MIB),
        (32 * MIB, 48 * MIB),
        (48 * MIB, SIZE),
        None,
    ]


def test_what_is_held_is_not_claimed() -> None:
    plan = Plan(SIZE, [(0, MIB), (2 * MIB, 3 * MIB)])
    assert claim_of(plan) == (MIB, 2 * MIB)
    assert claim_of(plan) == (3 * MIB, SIZE)


def test_nothing_is_claimed_without_a_whole_reader_or_a_demand() -> None:
    assert claim_of(Plan(SIZE, ()), whole=False) is None


def test_bounded_demand_is_rounded_up_to_a_step() -> None:
    plan = Plan(SIZE, ())
    assert claim_of(plan, wants(5, 7, bounded=True), whole=False) == (5, STEP)


def test_bounded_demand_never_goes_past_the_end() -> None:
    plan = Plan(1000, ())
    assert claim_of(plan, wants(900, 1000, bounded=True), whole=False) == (900, 1000)


def test_demand_that_is_held_claims_nothing() -> None:
    plan = Plan(SIZE, [(0, MIB)])
    assert claim_of(plan, wants(0, 10, bounded=True), whole=False) is None


def test_demand_near_a_transfer_waits_for_it() -> None:
    plan = Plan(SIZE, ())
    claim_of(plan)
    assert claim_of(plan, wants(NEAR, NEAR + 1, bounded=True), whole=False, split=True) is None


def test_demand_far_ahead_splits_the_claim() -> None:
    plan = Plan(SIZE, ())
    owner = plan.next((), whole=True, piece=None, split=True)
    assert owner is not None
    assert claim_of(plan, wants(32 * MIB, 32 * MIB + 10, bounded=True), whole=False, split=True) == (
        32 * MIB,
        32 * MIB + STEP,
    )
    assert owner.stop == 32 * MIB
    assert claim_of(plan) == (32 * MIB + STEP, SIZE)


def test_demand_far_ahead_waits_where_splitting_is_not_allowed() -> None:
    plan = Plan(SIZE, ())
    claim_of(plan)
    assert claim_of(plan, wants(32 * MIB, 33 * MIB, bounded=True), whole=False, split=False) is None


def test_what_a_transfer_did_not_bring_is_a_gap_again() -> None:
    plan = Plan(SIZE, ())
    claim = plan.next((), whole=True, piece=None, split=False)
    assert claim is not None
    plan.arrived(claim, 10)
    plan.release(claim)
    assert claim_of(plan) == (10, SIZE)


def test_a_run_begins_where_a_transfer_has_just_ended() -> None:
    plan = Plan(SIZE, ())
    ended = plan.next((), whole=True, piece=MIB, split=False)
    assert ended is not None
    plan.arrived(ended, MIB)  # not released yet: its last bytes wait for room in the file's queue
    assert claim_of(plan, piece=MIB) == (MIB, 2 * MIB)


def test_upstream_without_ranges_brings_everything_from_the_start() -> None:
    plan = Plan(SIZE, ())
    claim = plan.next([wants(40 * MIB, 41 * MIB, bounded=True)], whole=False, piece=None, split=False)
    assert claim is not None
    plan.take_all(claim)
    assert (claim.position, claim.stop) == (0, SIZE)


def test_upstream_without_ranges_leaves_what_is_held() -> None:
    plan = Plan(SIZE, [(0, MIB), (60 * MIB, SIZE)])
    claim = plan.next((), whole=True, piece=MIB, split=False)
    assert claim is not None
    plan.take_all(claim)
    assert (claim.position, claim.stop) == (MIB, 60 * MIB)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["next", "demand", "bytes", "end"]), st.integers(0, 99), st.integers(1, 100)),
    max_size=60,
)


@given(ACTIONS, st.booleans(), st.sampled_from([None, 7]))
@settings(max_examples=300, deadline=None)
def test_no_byte_is_received_twice_and_all_arrive_in_the_end(
    actions: list[tuple[str, int, int]], split: bool, piece: int | None
) -> None:
    size = 100
    plan = Plan(size, ())
    received = [0] * size

    def bring(claim: Claim, count: int) -> None:
        count = min(count, claim.left)
        for at in range(claim.position, claim.position + count):
            received[at] += 1
        plan.arrived(claim, count)

    def claim_next(*demands: Demand) -> Claim | None:
        claim = plan.next(demands, whole=not demands, piece=piece, split=split)
        assert claim is None or claim.left > 0
        return claim

    for kind, at, count in actions:
        if kind == "next":
            claim_next()
        elif kind == "demand":
            claim_next(Demand(at, Span(at, min(size, at + count), bounded=True)))
        elif plan.claims and kind == "bytes":
            bring(plan.claims[at % len(plan.claims)], count)
        elif plan.claims:
            plan.release(plan.claims[at % len(plan.claims)])
    while True:
        for claim in list(plan.claims):
            bring(claim, size)
            plan.release(claim)
        if claim_next() is None:
            break
    assert received == [1] * size
