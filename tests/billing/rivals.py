"""Several at once, each on a connection of its own, so that locks and transactions are real."""

import threading
from collections.abc import Callable

from django.db import connections

LONGEST_WAIT = 60


def together(*works: Callable[[], object]) -> list[object]:
    """Start all at the same moment; their results, or the errors they raised, in their order."""
    results: list[object] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(place: int) -> None:
        try:
            barrier.wait(LONGEST_WAIT)
            results[place] = works[place]()
        except Exception as error:
            results[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_WAIT)
        assert not thread.is_alive(), "two of them wait for each other"
    return results
