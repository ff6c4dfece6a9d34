import gc
import weakref

from cluster.garbage import nothing_is_collected, what_is_kept_is_passed_over


class Linked:
    """An object that refers to itself: only the garbage collector can free it."""

    def __init__(self) -> None:
        self.itself = self


class Plain:
    """An object that is freed when nothing refers to it."""


def test_what_outlived_a_collection_is_not_gone_through_again() -> None:
    calls = list(gc.callbacks)
    with what_is_kept_is_passed_over():
        kept = [Linked() for _ in range(100)]
        before = gc.get_freeze_count()
        gc.collect()
        assert gc.get_freeze_count() >= before + len(kept)
        assert {id(each) for each in kept}.isdisjoint(map(id, gc.get_objects()))
        left = len(gc.get_objects(generation=2))
        more = [Linked() for _ in range(100)]
        gc.collect(1)  # a smaller collection: what outlived it is looked at once more
        assert len(gc.get_objects(generation=2)) >= left + len(more)
    assert gc.get_freeze_count() == 0
    assert gc.callbacks == calls


def test_garbage_is_still_freed() -> None:
    with what_is_kept_is_passed_over():
        circle, plain = Linked(), Plain()
        left, freed = weakref.ref(circle), weakref.ref(plain)
        gc.collect()
        young = Linked()
        found = weakref.ref(young)
        del circle, plain, young
        assert freed() is None  # at once, however old
        gc.collect()
        assert found() is None
        assert left() is not None  # a circle that had outlived a collection waits for the end
    gc.collect()
    assert left() is None


def test_nothing_is_collected_while_a_driver_imports_and_afterwards_as_before() -> None:
    with nothing_is_collected():
        assert not gc.isenabled()
        with nothing_is_collected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
