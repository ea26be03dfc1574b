"""Which shards are wanted across splits and merges: `statemgr.lineage`."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from model.ids import Position, ShardId, ShardOrigin
from model.progress import ShardProgress, ShardReport, ShardState
from model.shard import BEGINNING, END, SourceShard, at_time
from statemgr.lineage import Lineage, trace
from tests.support.times import EPOCH_2026

NOW = at_time(EPOCH_2026)
OPEN = ShardProgress(origin=BEGINNING)
BEGUN = ShardProgress(Position("5"), origin=BEGINNING)
DRAINED = ShardProgress(Position("9"), report=ShardReport(ShardState.DRAINED), origin=BEGINNING)
DRAINED_EMPTY = ShardProgress(None, report=ShardReport(ShardState.DRAINED), origin=BEGINNING)


def listed(*rows: str, origin: ShardOrigin = BEGINNING) -> list[SourceShard]:
    """Make a listing of `child<parent,parent` rows."""
    shards = []
    for row in rows:
        name, _, parents = row.partition("<")
        shards.append(SourceShard(ShardId(name), tuple(map(ShardId, filter(None, parents.split(",")))), origin))
    return shards


def known(**progress: ShardProgress) -> dict[ShardId, ShardProgress]:
    """Name progress by shard."""
    return {ShardId(name): found for name, found in progress.items()}


def test_sources_without_origins_have_no_lineage() -> None:
    """Kafka: every partition is wanted, and nothing is noted or retired."""
    shards = [SourceShard(ShardId("a")), SourceShard(ShardId("b"))]
    assert trace(shards, known(c=DRAINED)) == Lineage((ShardId("a"), ShardId("b")))


def test_a_mapping_that_begins_starts_with_the_oldest_generation() -> None:
    """TRIM_HORIZON: every shard gets the mapping's origin, and only those without listed parents are wanted."""
    lineage = trace(listed("p", "a<p", "b<p", "c<a,b", "lone<expired"), {})
    assert lineage.wanted == ("p", "lone")
    assert lineage.origins == dict.fromkeys(["p", "a", "b", "c", "lone"], BEGINNING)


def test_latest_reads_open_shards_from_now_and_closed_ones_not_at_all() -> None:
    """A closed shard at the beginning of a LATEST mapping counts as read, at once and ever after."""
    shards = [*listed("p", origin=END), *listed("a<p", "b<p", origin=NOW)]
    lineage = trace(shards, {})
    assert lineage.wanted == ("a", "b")
    assert lineage.origins == {"p": END, "a": NOW, "b": NOW}
    later = known(p=ShardProgress(origin=END), a=ShardProgress(origin=NOW), b=ShardProgress(origin=NOW))
    assert trace(shards, later).wanted == ("a", "b")


def test_later_shards_begin_at_their_beginning_whatever_the_mapping_says() -> None:
    """A child that appears after the first look is read whole."""
    shards = [*listed("a", origin=END), *listed("b<a", origin=NOW)]
    assert trace(shards, known(a=ShardProgress(origin=NOW))).origins == {"b": BEGINNING}


def test_a_child_waits_for_both_parents_of_a_merge() -> None:
    """One drained parent is not enough; both are, and then they are not wanted any more."""
    shards = listed("a", "b", "c<a,b")
    assert trace(shards, known(a=DRAINED, b=BEGUN, c=OPEN)).wanted == ("b",)
    assert trace(shards, known(a=DRAINED, b=DRAINED_EMPTY, c=OPEN)).wanted == ("c",)


def test_a_parent_that_expired_holds_nobody_up_and_its_loss_is_told() -> None:
    """What the stream has deleted cannot be read; the children go on and the place is kept until they have begun."""
    lineage = trace(listed("b<a", "c<a"), known(a=BEGUN, b=OPEN, c=OPEN))
    assert (lineage.wanted, lineage.lost, lineage.retire) == (("b", "c"), ("a",), ())
    assert trace(listed("b<a", "c<a"), known(a=BEGUN, b=BEGUN, c=DRAINED)).retire == ("a",)


def test_progress_is_kept_until_all_children_have_checkpoints() -> None:
    """A drained parent that has left the listing is retired with the last child's first checkpoint."""
    shards = listed("b<a", "c<a")
    assert trace(shards, known(a=DRAINED, b=BEGUN, c=OPEN)).retire == ()
    assert trace(shards, known(a=DRAINED, b=BEGUN, c=BEGUN)).retire == ("a",)
    assert trace(listed("a", "b<a", "c<a"), known(a=DRAINED, b=BEGUN, c=BEGUN)).retire == ()


def test_an_open_shard_missing_from_one_listing_keeps_its_place() -> None:
    """Without children there is no proof that it is over."""
    lineage = trace(listed("b"), known(a=BEGUN, b=OPEN))
    assert (lineage.wanted, lineage.retire, lineage.lost) == (("b",), (), ("a",))


def test_a_drained_shard_whose_children_are_not_listed_yet_is_looked_after_soon() -> None:
    """The end of a shard may be read before the listing shows what came of it."""
    assert trace(listed("a"), known(a=DRAINED)).unsettled
    assert not trace(listed("a", "b<a"), known(a=DRAINED, b=OPEN)).unsettled


def test_parents_forgotten_by_a_lost_store_are_not_read_again() -> None:
    """A child is read only after its parents, so a known child vouches for its unknown ancestors."""
    lineage = trace(listed("g", "p<g", "x", "a<p"), known(a=BEGUN))
    assert lineage.wanted == ("x", "a")
    assert lineage.origins == {"g": END, "p": END, "x": BEGINNING}


def test_parents_told_again_of_an_earlier_state_are_not_read_again() -> None:
    """A node that held them long ago told a lost store what it knew; their children had begun since."""
    stale = known(g=BEGUN, p=BEGUN, a=BEGUN)
    assert trace(listed("g", "p<g", "a<p", "b<p"), stale).wanted == ("a", "b")


def test_a_mapping_that_began_reads_everything_rather_than_from_now_when_all_is_forgotten() -> None:
    """LATEST counts once: with a store that has lost all positions, records of any age may be owed."""
    shards = [*listed("p", origin=END), *listed("a<p", origin=NOW)]
    lineage = trace(shards, {}, began=True)
    assert lineage.origins == {"p": BEGINNING, "a": BEGINNING}
    assert lineage.wanted == ("p",)


def test_a_stream_that_was_made_anew_is_read_from_its_beginning() -> None:
    """Its shards have the old names, and a checkpoint from before a shard's beginning gives it away."""
    shards = [
        SourceShard(ShardId("a"), (), NOW, Position("70")),
        SourceShard(ShardId("b"), (), NOW, Position("71")),
        SourceShard(ShardId("c"), (ShardId("a"),), NOW, Position("72")),
    ]
    old = known(a=DRAINED, b=DRAINED_EMPTY, c=BEGUN)
    lineage = trace(shards, old)
    assert (lineage.renewed, lineage.wanted) == (("a", "b", "c"), ("a", "b"))
    assert lineage.origins == dict.fromkeys("abc", BEGINNING)
    here = known(a=ShardProgress(Position("100"), origin=BEGINNING), b=OPEN, c=OPEN)
    assert trace(shards, here).renewed == ()


class Stream:
    """A stream that splits, merges and forgets, with readers that make progress: a model for the property."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.parents: dict[ShardId, tuple[ShardId, ...]] = {}
        self.open: list[ShardId] = []
        self.expired: set[ShardId] = set()
        self.progress: dict[ShardId, ShardProgress] = {}
        self.drained: set[ShardId] = set()
        for _ in range(random.randint(1, 3)):
            self.add()

    def add(self, *parents: ShardId) -> None:
        """Open a shard."""
        name = ShardId(f"s{len(self.parents):03}")
        self.parents[name] = parents
        self.open.append(name)

    def reshard(self) -> None:
        """Split or merge."""
        self.random.shuffle(self.open)
        if len(self.open) > 1 and self.random.random() < 0.5:
            self.add(self.open.pop(), self.open.pop())
        else:
            parent = self.open.pop()
            self.add(parent)
            self.add(parent)

    def expire(self) -> None:
        """Forget the oldest closed shards that were read, as the retention does, children after parents."""
        for name, parents in self.parents.items():
            gone = all(parent in self.expired for parent in parents)
            if gone and name in self.drained and name not in self.open and self.random.random() < 0.3:
                self.expired.add(name)

    def look(self) -> Lineage:
        """Let the tracker look, and do what it decides."""
        shards = [
            SourceShard(name, parents, BEGINNING) for name, parents in self.parents.items() if name not in self.expired
        ]
        lineage = trace(shards, self.progress)
        for name, origin in lineage.origins.items():
            assert name not in self.progress
            self.progress[name] = ShardProgress(origin=origin)
        for name in lineage.retire:
            assert name in self.expired
            del self.progress[name]
        return lineage

    def read(self, name: ShardId) -> None:
        """Let a holder make progress, to the end where the shard has one."""
        if name in self.drained:
            return
        report = ShardReport(ShardState.READING)
        if name not in self.open and self.random.random() < 0.7:
            report = ShardReport(ShardState.DRAINED)
            self.drained.add(name)
        position = Position("1") if self.random.random() < 0.8 else self.progress[name].position
        self.progress[name] = ShardProgress(position, report=report, origin=self.progress[name].origin)


@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from(["reshard", "look", "read", "expire"]), max_size=60))
def test_children_never_overtake_and_everything_is_read_once(seed: int, steps: list[str]) -> None:
    """Whatever order things happen in, no child is wanted before its parents are drained, and no shard twice."""
    stream = Stream(Random(seed))
    wanted: tuple[ShardId, ...] = ()
    for step in [*steps, *["look", "read"] * 2 * (len(steps) + 8)]:
        if step == "reshard":
            stream.reshard()
        elif step == "expire":
            stream.expire()
        elif step == "read":
            for name in wanted:
                stream.read(name)
        else:
            lineage = stream.look()
            wanted = lineage.wanted
            assert not lineage.lost
            for name in wanted:
                assert name not in stream.drained
                assert all(parent in stream.drained for parent in stream.parents[name])
    assert set(stream.parents) - set(stream.open) <= stream.drained
    assert set(stream.open) <= set(stream.look().wanted)
