"""The state machine of shared consumers against a model that looks at all records each time."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from walsvc.topics.leases import Job, Lease, Leases, Moment, State

LEASE, OUT_MAX, ATTEMPTS_MAX = 10.0, 4, 3
HOLDERS = ["a", "b", "c"]


@dataclass
class Entry:
    """A record in the model."""

    job: Job
    holder: str | None = None
    deadline: float = 0.0
    attempts: int = 0
    ended: str = ""  # "returning", "dying", "done"
    delayed_until: float = 0.0
    owner: Lease | None = None  # who may still acknowledge it


class Machine(RuleBasedStateMachine):
    """Random calls, at random times."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases(LEASE, ATTEMPTS_MAX, OUT_MAX)
        self.entries: dict[int, Entry] = {}
        self.given: list[Lease] = []
        self.lsn, self.steady, self.wall = 0, 100.0, 1_000.0

    @property
    def now(self) -> Moment:
        return Moment(self.steady, self.wall)

    def out(self) -> list[Entry]:
        return [each for each in self.entries.values() if each.holder is not None]

    def eligible(self) -> list[int]:
        undone = [each for each in self.entries.values() if each.ended != "done"]
        found = []
        for each in undone:
            job = each.job
            first = all(job.key is None or other.job.key != job.key or other.job.lsn >= job.lsn for other in undone)
            due = each.delayed_until <= self.steady and job.not_before <= self.wall
            if first and due and each.holder is None and not each.ended:
                found.append(job.lsn)
        return sorted(found)

    def end(self, each: Entry) -> None:
        each.holder = None
        each.ended = "dying" if each.attempts >= ATTEMPTS_MAX else "returning"

    def check_ended(self, ended, lsns) -> None:
        assert sorted(job.lsn for job in (*ended.returning, *ended.dying)) == sorted(lsns)
        for job in ended.returning:
            assert self.entries[job.lsn].ended == "returning"
        for job in ended.dying:
            assert self.entries[job.lsn].ended == "dying"

    @rule(key=st.sampled_from([None, None, "x", "y"]), early=st.sampled_from([0.0, 0.0, 5.0]), tried=st.integers(0, 2))
    def offer(self, key, early, tried) -> None:
        self.lsn += 1
        job = Job(self.lsn, self.lsn, key, self.wall + early if early else 0.0, attempts=tried)
        self.entries[self.lsn] = Entry(job, attempts=tried)
        self.leases.offer(job, self.now)

    @rule(holder=st.sampled_from(HOLDERS))
    def take(self, holder) -> None:
        lease = self.leases.take(holder, self.now)
        eligible = self.eligible()
        if not eligible or len(self.out()) >= OUT_MAX:
            assert lease is None
            return
        assert lease is not None
        assert lease.job.lsn == eligible[0]
        each = self.entries[lease.job.lsn]
        each.holder, each.deadline, each.owner = holder, self.steady + LEASE, lease
        each.attempts += 1
        assert (lease.attempt, lease.deadline, lease.holder) == (each.attempts, each.deadline, holder)
        self.given.append(lease)

    @precondition(lambda self: self.given)
    @rule(data=st.data(), how=st.sampled_from(["ack", "nak", "late nak", "extend"]))
    def use(self, data, how) -> None:
        lease = data.draw(st.sampled_from(self.given))
        each = self.entries[lease.job.lsn]
        owned = each.owner is lease and each.ended != "done"
        assert self.leases.owns(lease) == owned
        assert self.leases.is_out(lease) == (owned and each.holder is not None)
        if not owned:
            return
        if how == "ack":
            each.holder, each.ended = None, "done"
            self.leases.done(lease.job, self.now)
        elif how == "extend" and each.holder is not None:
            each.deadline = self.steady + 7.0
            self.leases.extend(lease, 7.0, self.now)
        elif "nak" in how:
            delay = 5.0 if how == "late nak" else 0.0
            if delay:
                each.delayed_until = max(each.delayed_until, self.steady + delay)
            ended = self.leases.give_back(lease, delay, self.now)
            lsns = [lease.job.lsn] if each.holder is not None else []
            if lsns:
                self.end(each)
            self.check_ended(ended, lsns)

    @rule(seconds=st.sampled_from([0.0, 1.0, 3.0, 11.0]), wall=st.sampled_from([0.0, 1.0, -2.0]))
    def time(self, seconds, wall) -> None:
        due = self.leases.due(self.now)
        before = self.eligible()
        self.steady, self.wall = self.steady + seconds, self.wall + seconds + wall
        late = [each for each in self.out() if each.deadline <= self.steady]
        if due is None or (not wall and due > seconds):
            assert not late
            # a job behind the first one is looked at when that is out
            assert self.eligible()[:1] == before[:1] or wall
        for each in late:
            self.end(each)
        self.check_ended(self.leases.overdue(self.now), [each.job.lsn for each in late])

    @rule(holder=st.sampled_from(HOLDERS))
    def leave(self, holder) -> None:
        mine = [each for each in self.out() if each.holder == holder]
        for each in mine:
            self.end(each)
        self.check_ended(self.leases.leave(holder), [each.job.lsn for each in mine])

    @rule(data=st.data())
    def settle(self, data) -> None:
        """What was to be kept is kept."""
        waiting = [each for each in self.entries.values() if each.ended in ("returning", "dying")]
        if not waiting:
            return
        each = data.draw(st.sampled_from(waiting))
        if each.ended == "dying":
            each.ended = "done"
            self.leases.done(each.job, self.now)
        else:
            each.ended = ""
            self.leases.returned(each.job, self.now)

    @rule(data=st.data())
    def vanish(self, data) -> None:
        """A record is purged, or the log's end is cut."""
        left = [each for each in self.entries.values() if each.ended != "done"]
        if left:
            each = data.draw(st.sampled_from(left))
            each.holder, each.ended = None, "done"
            self.leases.done(each.job, self.now)

    @invariant()
    def same(self) -> None:
        eligible, job = self.eligible(), self.leases.ready(self.now)
        assert (job.lsn if job is not None else None) == (eligible[0] if eligible else None)
        assert self.leases.out == len(self.out()) <= OUT_MAX
        assert self.leases.full == (len(self.out()) >= OUT_MAX)
        assert sorted(self.leases.jobs) == [lsn for lsn, each in self.entries.items() if each.ended != "done"]
        keys = [each.job.key for each in self.out() if each.job.key is not None]
        assert len(keys) == len(set(keys)), "two records of one key are out"

    def teardown(self) -> None:
        """Whatever has happened, all records come to their end."""
        for each in self.entries.values():
            if each.ended == "returning":
                self.leases.returned(each.job, self.now)
            elif each.ended == "dying":
                self.leases.done(each.job, self.now)
        self.leases.leave("a"), self.leases.leave("b"), self.leases.leave("c")
        for job in list(self.leases.jobs.values()):
            if job.state is State.RETURNING:
                self.leases.returned(job, self.now)
            elif job.state is State.DYING:
                self.leases.done(job, self.now)
        later = Moment(self.steady + 100, self.wall + 100)
        while (lease := self.leases.take("z", later)) is not None:
            self.leases.done(lease.job, later)
        assert not self.leases.jobs


TestLeases = Machine.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_without_leases_a_worker_that_leaves_keeps_what_it_has_and_another_one_may_claim_it():
    leases, now = Leases(None, 2, 10), Moment(0.0, 0.0)
    leases.offer(Job(1, 1), now)
    lease = leases.take("w1", now)
    assert lease is not None
    assert lease.deadline is None
    assert leases.due(now) is None
    assert leases.leave("w1") == ([], [])
    assert leases.overdue(Moment(1e9, 1e9)) == ([], [])
    again = leases.pass_on(lease.job, "w2")
    assert (again.attempt, leases.out, leases.owns(lease)) == (2, 1, False)
    assert leases.give_back(again, 0.0, now).dying == [lease.job]


def test_a_record_that_a_worker_has_had_since_before_the_log_was_opened_is_out():
    leases, now = Leases(None, None, 10), Moment(0.0, 0.0)
    leases.hold(Job(1, 1, "k", attempts=1), "w1", now)
    leases.hold(Job(2, 2, "k", attempts=1), "w1", now)
    assert (leases.out, leases.jobs[2].state) == (1, State.BEHIND)
    assert leases.take("w2", now) is None


def test_record_whose_time_has_come_waits_again_where_the_wall_clock_is_set_back():
    leases = Leases(10.0, None, 10)
    leases.offer(Job(1, 1, not_before=1_005.0), Moment(0.0, 1_000.0))
    assert leases.ready(Moment(5.0, 1_005.0)) is leases.jobs[1]
    back = Moment(5.0, 1_004.0)
    assert leases.pick(1, "w1", back) is leases.take("w1", back) is None
    assert leases.opens(back) == leases.due(back) == 1.0
    assert leases.take("w1", Moment(6.0, 1_005.0)).job.lsn == 1


def test_deadlines_of_what_is_done_are_forgotten_long_before_they_come_whatever_a_slow_worker_holds():
    leases = Leases(10.0, None, 100)
    leases.offer(Job(1, 1), Moment(0.0, 0.0))
    slow = leases.take("slow", Moment(0.0, 0.0))
    assert slow is not None
    for lsn in range(2, 10_000):
        now = Moment(lsn / 1_000, 0.0)
        leases.offer(Job(lsn, lsn), now)
        lease = leases.take("quick", now)
        assert lease is not None
        if lsn == 5_000:
            leases.extend(slow, 10.0, now)
        leases.done(lease.job, now)
    end = Moment(10.0, 0.0)
    assert leases.due(end) == 5.0, "the slow worker's, and none of the 9,998 that are done"
    assert leases.overdue(Moment(15.0, 0.0)).returning == [slow.job]


def test_a_record_that_was_extended_twice_to_the_same_moment_is_overdue_once():
    leases, now = Leases(10.0, None, 100), Moment(0.0, 0.0)
    leases.offer(Job(1, 1), now)
    lease = leases.take("w", now)
    assert lease is not None
    leases.extend(lease, 10.0, now)
    assert leases.overdue(Moment(10.0, 0.0)).returning == [lease.job]
    assert leases.out == 0
