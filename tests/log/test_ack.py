"""The answer to an append, on both twins: as a future, as a coroutine, and woken by whom and in which order."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from array import array
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import walsvc
from walsvc.log.commit import ack as twins
from walsvc.model import AppendResult

TWINS = {"python": twins.PythonWaker}
if twins.compiled is not None:
    TWINS["c"] = twins.compiled.Waker
compiled_only = pytest.mark.skipif(twins.compiled is None, reason="walsvc was installed without a C compiler")
SIZE = 100


@pytest.fixture(params=TWINS)
def make(request: pytest.FixtureRequest) -> Any:
    """Makes a Waker for a loop."""
    return TWINS[request.param]


def settle(waker: Any, acks: list[Any], first_lsn: int = 1) -> None:
    """Answer a group of records of SIZE bytes."""
    waker.settle(acks, first_lsn, 1, 4096, array("I", [SIZE]) * len(acks), 7)


def answer(waker: Any, acks: list[Any], first_lsn: int = 1) -> None:
    """Answer a group and wake whoever waits."""
    settle(waker, acks, first_lsn)
    waker.wake()


def soon(waker: Any, acks: list[Any], first_lsn: int = 1) -> None:
    """Answer a group from a callback of the loop, as the disk's completion does."""
    asyncio.get_running_loop().call_soon(answer, waker, acks, first_lsn)


def result_of(lsn: int) -> AppendResult:
    return AppendResult(lsn, 1, 4096 + SIZE * (lsn - 1), SIZE, True, 7)


def waker_here(make: Any) -> Any:
    return make(asyncio.get_running_loop())


# ---- as a future


async def test_fields_of_each_record_and_none_is_passed_over(make):
    waker = waker_here(make)
    acks = [waker.ack(), None, waker.ack()]
    waker.settle(acks, 5, 3, 1000, array("I", [10, 20, 30]), 9)
    assert await acks[0] == AppendResult(5, 3, 1000, 10, True, 9)
    assert await acks[2] == AppendResult(7, 3, 1030, 30, True, 9)
    assert type(acks[2].result()) is AppendResult
    assert acks[0].result() is acks[0].result()


@pytest.mark.parametrize(
    "wait",
    [
        lambda ack: ack,
        asyncio.gather,
        lambda ack: asyncio.wait_for(ack, 60),
        asyncio.shield,
        lambda ack: next(iter(asyncio.as_completed([ack]))),
        lambda ack: asyncio.get_running_loop().create_task(ack),
        asyncio.ensure_future,
    ],
    ids=["await", "gather", "wait_for", "shield", "as_completed", "create_task", "ensure_future"],
)
@pytest.mark.parametrize("when", ["before", "soon"])
async def test_everything_of_asyncio_that_waits_takes_it(make, wait: Callable[[Any], Any], when: str):
    waker = waker_here(make)
    ack = waker.ack()
    if when == "before":
        answer(waker, [ack])
    else:
        soon(waker, [ack])
    got = await wait(ack)
    assert got in (result_of(1), [result_of(1)])


async def test_timeout_and_task_group_take_it(make):
    waker = waker_here(make)
    acks = [waker.ack() for _ in range(3)]
    soon(waker, acks)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        tasks = [group.create_task(ack) for ack in acks]
    assert [task.result() for task in tasks] == [result_of(lsn) for lsn in (1, 2, 3)]


async def test_wait_refuses_it_as_it_refuses_coroutines(make):
    with pytest.raises(TypeError, match="coroutines"):
        await asyncio.wait([waker_here(make).ack()])


async def test_several_tasks_wait_for_the_same(make):
    waker = waker_here(make)
    ack = waker.ack()

    async def wait() -> Any:
        return await ack

    tasks = [asyncio.ensure_future(wait()) for _ in range(3)]
    await asyncio.sleep(0)
    soon(waker, [ack])
    assert await asyncio.gather(*tasks) == [result_of(1)] * 3


async def test_gather_with_a_cancelled_child_ends(make):
    waker = waker_here(make)
    acks = [waker.ack() for _ in range(2)]
    everybody = asyncio.gather(*acks, return_exceptions=True)
    acks[0].cancel("enough")
    answer(waker, acks)
    first, second = await asyncio.wait_for(everybody, 60)
    assert isinstance(first, asyncio.CancelledError)
    assert second == result_of(2)
    with pytest.raises(asyncio.CancelledError, match="enough"):
        acks[0].result()


async def test_cancelled_wait_keeps_its_neighbours(make):
    waker = waker_here(make)
    acks = [waker.ack() for _ in range(3)]

    async def wait(ack: Any) -> Any:
        return await ack

    tasks = [asyncio.ensure_future(wait(ack)) for ack in acks]
    await asyncio.sleep(0)
    tasks[1].cancel()
    soon(waker, acks)
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert got[0] == result_of(1)
    assert isinstance(got[1], asyncio.CancelledError)
    assert got[2] == result_of(3)
    assert acks[1].cancelled()


async def test_timeout_of_the_caller_and_a_second_wait(make):
    waker = waker_here(make)
    ack = waker.ack()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(ack), 0)
    soon(waker, [ack])
    assert await ack == result_of(1)


async def test_failure_reaches_everybody_and_is_raised_again(make):
    waker = waker_here(make)
    ack = waker.ack()
    told: list[Any] = []
    ack.add_done_callback(told.append)
    ack.set_exception(OSError(5, "gone"))
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            await ack
    await asyncio.sleep(0)
    assert told == [ack]
    assert isinstance(ack.exception(), OSError)
    waker.settle([ack], 1, 1, 4096, array("I", [1]), 1)
    assert isinstance(ack.exception(), OSError)


async def test_wrong_use_raises_as_futures_do(make):
    ack = waker_here(make).ack()
    for ask in (ack.result, ack.exception):
        with pytest.raises(asyncio.InvalidStateError):
            ask()
    with pytest.raises(TypeError):
        ack.add_done_callback()
    with pytest.raises(TypeError):
        ack.set_exception("no exception")
    ack.set_result(1)
    with pytest.raises(asyncio.InvalidStateError):
        ack.set_result(2)
    with pytest.raises(asyncio.InvalidStateError):
        ack.set_exception(OSError())
    assert not ack.cancel()
    assert ack.result() == 1
    assert ack.exception() is None


async def test_lengths_must_match_the_acks(make):
    waker = waker_here(make)
    ack = waker.ack()
    with pytest.raises(ValueError, match="one length for each"):
        waker.settle([ack], 1, 1, 1, array("I", [1, 2]), 1)
    assert not ack.done()


async def test_callbacks_keep_order_context_and_can_be_removed(make):
    waker = waker_here(make)
    ack, seen = waker.ack(), []
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

    def note(name: str) -> Callable[[Any], None]:
        return lambda done: seen.append((name, variable.get(), done is ack))

    gone, twice = note("gone"), note("twice")
    variable.set(1)
    ack.add_done_callback(note("first"))
    ack.add_done_callback(gone)
    context = contextvars.copy_context()
    context.run(variable.set, 2)
    ack.add_done_callback(twice, context=context)
    ack.add_done_callback(twice)
    assert ack.remove_done_callback(gone) == 1
    assert ack.remove_done_callback(gone) == 0
    variable.set(3)
    answer(waker, [ack])
    assert seen == []
    await asyncio.sleep(0)
    assert seen == [("first", 1, True), ("twice", 2, True), ("twice", 1, True)]
    ack.add_done_callback(note("late"))
    await asyncio.sleep(0)
    assert seen[3:] == [("late", 3, True)]


async def test_exception_that_nobody_fetched_is_reported(make):
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    waker = waker_here(make)
    fetched, forgotten = waker.ack(), waker.ack()
    for ack in (fetched, forgotten):
        ack.set_exception(OSError(5, "gone"))
    fetched.exception()
    del fetched, forgotten, ack
    gc.collect()
    loop.set_exception_handler(None)
    assert len(told) == 1
    assert "exception was never retrieved" in told[0]


async def test_exception_is_reported_of_an_ack_whose_memory_was_in_a_cycle_that_was_collected(make):
    loop, told = asyncio.get_running_loop(), []
    waker = waker_here(make)
    for _ in range(50):
        cycle = waker.ack()
        cycle.add_done_callback(lambda _, own=cycle: own)
        del cycle
    gc.collect()
    loop.set_exception_handler(lambda _, context: told.append(context["message"]))
    acks = [waker.ack() for _ in range(100)]
    while acks:
        acks.pop().set_exception(OSError(5, "gone"))
    gc.collect()
    loop.set_exception_handler(None)
    assert len(told) == 100


async def test_shown_as_what_it_is(make):
    waker = waker_here(make)
    pending, done, failed, cancelled = (waker.ack() for _ in range(4))
    done.set_result("value")
    failed.set_exception(OSError("gone"))
    cancelled.cancel()
    assert failed.exception() is not None
    for ack, words in ((pending, "pending"), (done, "'value'"), (failed, "gone"), (cancelled, "cancelled")):
        assert words in repr(ack)
        assert "Ack" in repr(ack)
    assert weakref.ref(done)() is done
    assert asyncio.isfuture(done)
    assert asyncio.iscoroutine(done)
    assert done.get_loop() is asyncio.get_running_loop()


# ---- as a coroutine


async def test_coroutine_protocol(make):
    waker = waker_here(make)
    ack = waker.ack()
    assert ack.send(None) is ack
    assert ack._asyncio_future_blocking
    ack._asyncio_future_blocking = False
    with pytest.raises(KeyError, match="thrown"):
        ack.throw(KeyError("thrown"))
    ack.close()
    assert not ack.done()
    answer(waker, [ack])
    with pytest.raises(StopIteration) as stop:
        ack.send(None)
    assert stop.value.value == result_of(1)


async def test_task_of_it_that_is_cancelled_ends(make):
    waker = waker_here(make)
    ack, other = waker.ack(), waker.ack()
    early, late = asyncio.get_running_loop().create_task(ack), asyncio.get_running_loop().create_task(other)
    early.cancel()
    await asyncio.sleep(0)
    late.cancel()
    got = await asyncio.gather(early, late, return_exceptions=True)
    assert [type(each) for each in got] == [asyncio.CancelledError] * 2
    answer(waker, [ack, other])
    assert other.cancelled()


# ---- waking


async def woken(
    waker: Any, count: int, act: Callable[[int], None] | None = None
) -> tuple[list[Any], list[int], list[Any]]:
    """Tasks that wait for an Ack each; the Acks, the numbers of those woken in order, and the tasks."""
    acks, order = [waker.ack() for _ in range(count)], []

    async def wait(number: int) -> Any:
        got = await acks[number]
        order.append(number)
        if act is not None:
            act(number)
        return got

    tasks = [asyncio.ensure_future(wait(number)) for number in range(count)]
    await asyncio.sleep(0)
    return acks, order, tasks


async def test_every_waiter_is_woken_in_order_of_groups_and_records(make):
    waker = waker_here(make)
    first, order, tasks = await woken(waker, 5000)
    second, order_behind, tasks_behind = await woken(waker, 5000)
    loop = asyncio.get_running_loop()
    loop.call_soon(answer, waker, first)
    loop.call_soon(answer, waker, second, 5001)
    seen: list[int] = []
    tasks_behind[0].add_done_callback(lambda _: seen.append(len(order)))
    got = await asyncio.gather(*tasks, *tasks_behind)
    assert [result.lsn for result in got] == list(range(1, 10001))
    assert order == order_behind == list(range(5000))
    assert seen == [5000]


async def test_group_answered_inside_a_task_does_not_let_the_next_one_overtake(make):
    """A rotation ends in a task, where no other task may be stepped; the group behind it is answered by a callback."""
    waker = waker_here(make)
    ahead, order, tasks = await woken(waker, 200)
    behind, _, tasks_behind = await woken(waker, 200, lambda _: order.append(-1))
    asyncio.get_running_loop().call_soon(answer, waker, behind, 201)
    answer(waker, ahead)
    await asyncio.gather(*tasks, *tasks_behind)
    assert order == list(range(200)) + [-1] * 200


async def test_task_that_is_woken_may_append_and_await_at_once(make):
    waker = waker_here(make)

    async def chain(count: int) -> list[int]:
        got = []
        for lsn in range(1, count + 1):
            ack = waker.ack()
            soon(waker, [ack], lsn)
            got.append((await ack).lsn)
        return got

    assert await asyncio.gather(*(chain(50) for _ in range(20))) == [list(range(1, 51))] * 20


async def test_woken_task_that_settles_more_is_not_entered_twice(make):
    waker = waker_here(make)
    later, order_later, tasks_later = await woken(waker, 3)

    def act(number: int) -> None:
        if number == 0:
            answer(waker, later, 10)
        assert asyncio.current_task() in tasks

    acks, order, tasks = await woken(waker, 3, act)
    soon(waker, acks)
    await asyncio.gather(*tasks, *tasks_later)
    assert (order, order_later) == ([0, 1, 2], [0, 1, 2])


async def test_neighbour_that_a_woken_task_cancels_is_cancelled(make):
    """Its Ack is done, so the task itself must be: nothing that was to happen is lost."""
    waker = waker_here(make)
    acks, order, tasks = await woken(waker, 2, lambda number: number or tasks[1].cancel() or None)
    soon(waker, acks)
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert got[0] == result_of(1)
    assert isinstance(got[1], asyncio.CancelledError)
    assert order == [0]


async def test_all_are_done_and_without_callbacks_before_the_first_is_woken(make):
    waker = waker_here(make)
    seen: list[Any] = []
    extra = seen.append

    def act(number: int) -> None:
        if number == 0:
            seen.append([ack.done() for ack in acks])
            seen.append(acks[1].remove_done_callback(extra))

    acks, _, tasks = await woken(waker, 2, act)
    acks[1].add_done_callback(extra)
    soon(waker, acks)
    await asyncio.gather(*tasks)
    await asyncio.sleep(0)
    assert seen == [[True, True], 0, acks[1]]


async def test_task_in_a_context_that_is_entered_already_is_woken(make):
    waker = waker_here(make)
    ack = waker.ack()
    context = contextvars.copy_context()

    async def wait() -> Any:
        return await ack

    task = asyncio.get_running_loop().create_task(wait(), context=context)
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(answer, waker, [ack], context=context)
    assert await asyncio.wait_for(task, 60) == result_of(1)


async def test_debug_mode_goes_through_the_loop(make):
    loop = asyncio.get_running_loop()
    waker = waker_here(make)
    acks, order, tasks = await woken(waker, 3)
    loop.set_debug(True)
    try:
        answered: list[int] = []
        loop.call_soon(lambda: (answer(waker, acks), answered.append(len(order))))
        await asyncio.gather(*tasks)
    finally:
        loop.set_debug(False)
    assert answered == [0]
    assert order == [0, 1, 2]


async def test_tasks_written_in_python_are_woken_too(make):
    waker = waker_here(make)
    ack = waker.ack()

    async def wait() -> Any:
        return await ack

    task: Any = asyncio.tasks._PyTask(wait(), loop=asyncio.get_running_loop())  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    soon(waker, [ack])
    assert await task == result_of(1)


async def test_cancelling_and_failing_never_run_a_task_at_once(make):
    """asyncio.timeout sets its state after task.cancel() returns; a task that ran meanwhile would see it unset."""
    waker = waker_here(make)
    acks, order, tasks = await woken(waker, 2)
    seen: list[Any] = []

    def act() -> None:
        acks[0].cancel()
        acks[1].set_exception(OSError("gone"))
        seen.append([task.done() for task in tasks])

    asyncio.get_running_loop().call_soon(act)
    got = await asyncio.gather(*tasks, return_exceptions=True)
    assert seen == [[False, False]]
    assert [type(each) for each in got] == [asyncio.CancelledError, OSError]
    assert order == []


@compiled_only
async def test_woken_directly_means_in_the_same_callback():
    waker = waker_here(TWINS["c"])
    acks, order, tasks = await woken(waker, 3)
    seen: list[int] = []

    def act() -> None:
        answer(waker, acks)
        seen.append(len(order))

    asyncio.get_running_loop().call_soon(act)
    await asyncio.gather(*tasks)
    assert seen == [3]


@compiled_only
async def test_large_group_is_woken_in_slices():
    """65,536 tasks in one callback would hold the loop for longer than the contract allows."""
    waker = waker_here(TWINS["c"])
    acks, order, tasks = await woken(waker, 65_536)
    seen: list[int] = []
    loop = asyncio.get_running_loop()

    def act() -> None:
        answer(waker, acks)
        seen.append(len(order))
        loop.call_soon(lambda: seen.append(len(order)))

    loop.call_soon(act)
    await asyncio.gather(*tasks)
    assert order == list(range(65_536))
    assert 0 < seen[0] <= seen[1] < 65_536


class LosingLoop(asyncio.SelectorEventLoop):
    """Loses the callback that goes on waking, once each time: so does asyncio where a signal handler's exception comes between
    taking it off its list and calling it."""

    lost: int = 0

    def call_soon(self, callback: Callable[..., Any], *arguments: Any, context: Any = None) -> asyncio.Handle:
        if getattr(callback, "__name__", "") == "_wake_on" and arguments[0] > self.lost:
            self.lost += 1
            return asyncio.Handle(callback, arguments, self)
        return super().call_soon(callback, *arguments, context=context)


@compiled_only
@pytest.mark.parametrize("count", [3, 5000])
def test_callback_that_the_loop_loses_leaves_nobody_asleep(count: int):
    loop = LosingLoop()

    async def main() -> list[int]:
        waker = waker_here(TWINS["c"])
        acks, order, tasks = await woken(waker, count)
        answer(waker, acks)  # in a task, so each is woken from the loop
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        return order

    with asyncio.Runner(
        loop_factory=lambda: loop, debug=False
    ) as runner:  # in debug mode each callback goes through the loop
        assert runner.run(main()) == list(range(count))
    assert loop.lost > count // 2048


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_out_of_a_woken_task_leaves_the_others_to_be_woken(make, kind: type[BaseException]):
    loop = asyncio.new_event_loop()

    async def prepare() -> Any:
        def act(number: int) -> None:
            if number == 1:
                raise kind

        waker = waker_here(make)
        return waker, *await woken(waker, 4, act)

    async def rest(tasks: list[Any]) -> list[Any]:
        return await asyncio.gather(*tasks, return_exceptions=True)

    try:
        waker, acks, order, tasks = loop.run_until_complete(prepare())
        loop.call_soon(answer, waker, acks)
        waiting: Coroutine[Any, Any, Any] = rest([tasks[0], *tasks[2:]])
        with pytest.raises(kind):
            loop.run_until_complete(asyncio.sleep(0.01))
        loop.run_until_complete(waiting)
        assert sorted(order) == [0, 1, 2, 3]
        with pytest.raises(kind):
            tasks[1].result()
    finally:
        loop.close()


async def test_nothing_is_kept_by_a_cycle_of_task_and_ack(make):
    waker = waker_here(make)

    class Kept:
        pass

    async def forever(kept: Kept) -> None:
        await waker.ack()

    kept = Kept()
    gone = weakref.ref(kept)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending" is what is done here
    task = asyncio.ensure_future(forever(kept))
    await asyncio.sleep(0)
    del task, kept
    gc.collect()
    loop.set_exception_handler(None)
    assert gone() is None


async def test_nothing_is_kept_of_an_append_that_is_refused(tmp_path):
    """The exception's traceback has a frame that holds the Ack, which holds the exception, and no callback was ever added to it."""

    def kept() -> int:
        gc.collect()
        return sum(isinstance(each, walsvc.errors.Conflict) for each in gc.get_objects())

    async with walsvc.open(tmp_path) as log:
        before = kept()
        for _ in range(20):
            with pytest.raises(walsvc.errors.Conflict):
                await log.append(b"x", expected=17)
            with pytest.raises(walsvc.errors.Conflict):
                await log.topic("t").append_batch([b"x"], expected=17)
        assert kept() == before


async def test_closed_loop_and_pending_acks(make):
    loop = asyncio.new_event_loop()
    waker = make(loop)
    ack = waker.ack()
    ack.add_done_callback(lambda _: None)
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        answer(waker, [ack])
    assert ack.done()


@compiled_only
def test_no_memory_at_any_allocation_forgets_nobody():
    """Each allocation of answering and waking fails once. Whoever waits is told at the next attempt, once, and rightly."""
    test_api = pytest.importorskip("_testcapi", reason="this Python was installed without its test modules")

    class Loop:
        def __init__(self) -> None:
            self.handles: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

        def call_soon(self, callback: Callable[..., Any], *arguments: Any, context: Any = None) -> None:
            self.handles.append((callback, arguments))

    failed = 0
    for nth in range(1, 40):
        loop, seen = Loop(), []
        waker = TWINS["c"](loop)
        acks = [waker.ack() for _ in range(5)]
        for ack in acks:
            ack.add_done_callback(seen.append)
        acks[2].add_done_callback(seen.append)
        lengths = array("I", [SIZE]) * len(acks)
        test_api.set_nomemory(nth, nth + 1)
        try:
            waker.settle(acks, 1, 1, 4096, lengths, 7)
            waker.wake()
        except MemoryError:
            failed += 1
        finally:
            test_api.remove_mem_hooks()
        settle(waker, acks)
        waker.wake()
        while loop.handles:
            callback, arguments = loop.handles.pop(0)
            callback(*arguments)
        assert [ack.result() for ack in acks] == [result_of(lsn) for lsn in range(1, 6)], nth
        assert sorted(seen, key=acks.index) == sorted([*acks, acks[2]], key=acks.index), nth
    assert failed
