"""Seats of one engine: never more than the share, first come first served, none lost by those who give up."""

import asyncio

from runs.engine.seats import Seats


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def line_of_three() -> tuple[list[int], list[int]]:
    """Who got the one seat, in order; and how many were seated each time."""
    seats, order, taken = Seats(), list[int](), list[int]()
    assert seats.now("m", 1) and not seats.now("m", 1)

    async def wait(number: int) -> None:
        assert await seats.take("m", 60, asyncio.Event())
        order.append(number)
        taken.append(seats.taken["m"])
        await settle()
        seats.leave("m")

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await settle()
    assert order == [] and not seats.now("m", 1)
    seats.leave("m")
    await asyncio.gather(*tasks)
    assert seats.taken["m"] == 0
    return order, taken


def test_the_first_in_line_is_seated_first_and_never_more_than_the_share() -> None:
    assert asyncio.run(line_of_three()) == ([0, 1, 2], [1, 1, 1])


async def gives_up(how: str) -> bool:
    seats, poked = Seats(), asyncio.Event()
    seats.now("m", 1)
    task = asyncio.create_task(seats.take("m", 0.01 if how == "late" else 60, poked))
    await settle()
    if how == "poked":
        poked.set()
    if how == "cancelled":
        task.cancel()
    if how == "seated_and_cancelled":
        seats.leave("m")
        task.cancel()
    got = await asyncio.gather(task, return_exceptions=True)
    if how != "seated_and_cancelled":
        seats.leave("m")
    assert seats.taken["m"] == 0 and seats.now("m", 1), "a seat was lost"
    return got[0] is True


def test_who_gives_up_leaves_the_line_and_no_seat_behind() -> None:
    assert [asyncio.run(gives_up(how)) for how in ("late", "poked", "cancelled", "seated_and_cancelled")] == [False] * 4


async def grows() -> int:
    seats = Seats()
    seats.now("m", 1)
    tasks = [asyncio.create_task(seats.take("m", 60, asyncio.Event())) for _ in range(3)]
    await settle()
    assert not seats.now("m", 3)  # another engine ended: the line is called up, and whoever asks now is behind it
    await settle()
    seated = seats.taken["m"]
    for task in tasks:
        task.cancel()
    return seated


def test_a_share_that_grew_calls_up_the_line() -> None:
    assert asyncio.run(grows()) == 3
