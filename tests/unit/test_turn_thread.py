"""A thread that tenants share: whose step is next, and how work ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator

import pytest

from ragq.client.tenancy.turn_thread import AT_A_TIME, LEAD, TurnThread


@pytest.fixture
async def thread() -> AsyncIterator[TurnThread]:
    thread = TurnThread("test")
    yield thread
    await thread.close()


def steps(owner: str, count: int, taken: list[str]) -> Generator[None, None, str]:
    for number in range(count):
        if number:
            yield
        taken.append(owner)
    return owner


async def work_of(thread: TurnThread, taken: list[str], **counts: int) -> None:
    """Run work of this many steps for each owner, beginning together."""
    await asyncio.gather(*(thread.run(owner, steps(owner, count, taken)) for owner, count in counts.items()))


async def test_work_returns_its_result_and_raises_its_error(thread: TurnThread) -> None:
    def fail() -> Generator[None, None, None]:
        yield
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        await thread.run("a", fail())
    assert await thread.run("a", steps("a", 3, [])) == "a"


async def test_owners_take_turns_however_much_one_of_them_brings(thread: TurnThread) -> None:
    taken: list[str] = []
    flood = [thread.run("loud", steps("loud", 10, taken)) for _ in range(5)]
    await asyncio.gather(*flood, work_of(thread, taken, quiet=10))
    assert taken[:20].count("quiet") == 10


async def test_works_of_one_owner_take_turns(thread: TurnThread) -> None:
    taken: list[str] = []
    await asyncio.gather(*(thread.run("a", steps(name, 2 * AT_A_TIME, taken)) for name in ("first", "second")))
    assert taken == (["first"] * AT_A_TIME + ["second"] * AT_A_TIME) * 2


async def test_of_short_works_of_one_owner_one_ends_before_the_next_begins(thread: TurnThread) -> None:
    taken: list[str] = []
    await asyncio.gather(*(thread.run("a", steps(name, 5, taken)) for name in ("first", "second")))
    assert taken == ["first"] * 5 + ["second"] * 5


async def test_short_work_of_one_who_was_idle_is_done_before_anything_else_goes_on(thread: TurnThread) -> None:
    taken: list[str] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def announce() -> Generator[None, None, None]:
        yield from steps("loud", 5 * LEAD, taken)
        loop.call_soon_threadsafe(begun.set)
        yield from steps("loud", 100_000, taken)

    flood = asyncio.create_task(thread.run("loud", announce()))
    await begun.wait()
    await work_of(thread, taken, quiet=LEAD)
    first = taken.index("quiet")
    assert taken[first : first + LEAD] == ["quiet"] * LEAD
    flood.cancel()


async def test_one_who_was_idle_is_ahead_by_some_steps_only(thread: TurnThread) -> None:
    taken: list[str] = []
    await work_of(thread, taken, loud=10 * LEAD)
    taken.clear()
    await work_of(thread, taken, loud=3 * LEAD, quiet=3 * LEAD)
    assert taken[: 2 * LEAD].count("quiet") == pytest.approx(1.5 * LEAD, abs=1)
    assert taken[: 4 * LEAD].count("loud") == pytest.approx(1.5 * LEAD, abs=1)


async def test_cancelled_work_takes_no_more_steps_and_others_go_on(thread: TurnThread) -> None:
    taken: list[str] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless() -> Generator[None, None, None]:
        while True:
            taken.append("endless")
            loop.call_soon_threadsafe(begun.set)
            yield

    task = asyncio.create_task(thread.run("a", endless()))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    await thread.run("a", steps("a", 1, taken))
    count = taken.count("endless")
    await work_of(thread, taken, a=10, b=10)
    assert taken.count("endless") == count


async def test_closing_cancels_what_waits(thread: TurnThread) -> None:
    tasks = [asyncio.create_task(thread.run(name, steps(name, 100_000, []))) for name in "ab"]
    await asyncio.sleep(0)
    await thread.close()
    done, _ = await asyncio.wait(tasks, timeout=5)
    assert [task.cancelled() for task in done] == [True, True]
    with pytest.raises(RuntimeError):
        await thread.run("a", steps("a", 1, []))
