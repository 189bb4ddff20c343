"""Limits for clients: rates, waits, and crowds."""

from kwsd.limits import _MOST_ADDRESSES, Crowd, Penalties, Rate


def test_a_burst_is_allowed_and_then_so_many_a_second():
    rate = Rate(per_second=2, burst=3)
    assert [rate.allows(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [rate.allows(10.0 + 0.25 * n) for n in range(1, 9)] == [False, True] * 4
    assert [rate.allows(100.0) for _ in range(4)] == [True, True, True, False]  # no more than a burst


def test_waits_double_up_to_the_longest_and_are_forgotten_in_time():
    penalties = Penalties(first_seconds=1.0, longest_seconds=5.0)
    now, waits = 0.0, []
    for _ in range(5):
        n, seconds = penalties.fail("a", now)
        waits.append((n, seconds))
        assert penalties.fail("a", now + seconds / 2) == (0, seconds / 2)  # it is already waiting
        now += seconds
    assert waits == [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (5, 5.0)]
    assert penalties.fail("b", now) == (1, 1.0)
    assert penalties.fail("a", now + 5.1) == (1, 1.0)


def test_only_so_many_addresses_are_remembered():
    penalties = Penalties(first_seconds=1.0, longest_seconds=5.0)
    for n in range(_MOST_ADDRESSES + 1):
        penalties.fail(str(n), 0.0)
    assert penalties.fail("0", 0.5) == (1, 1.0)
    assert penalties.fail("2", 0.5) == (0, 0.5)


def test_the_oldest_of_the_busiest_address_gives_way():
    crowd = Crowd(3)
    assert [crowd.add(name, address) for name, address in [("a", "x"), ("b", "y"), ("c", "y")]] == [None] * 3
    assert crowd.add("d", "z") == "b"
    crowd.discard("d")
    assert crowd.add("e", "x") is None
    assert crowd.add("f", "x") == "a"
    assert list(crowd) == ["c", "e", "f"]
