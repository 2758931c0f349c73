"""What the processes of a run have to agree on; with one process nothing of it costs anything."""

import hashlib
import json
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import multihost

from alexnet_jax.config import Config, flatten
from alexnet_jax.model import towers
from alexnet_jax.training.stopping import Stopped

T = TypeVar("T")

DAY = 24 * 3600 * 1000  # milliseconds; a process that dies is noticed long before
VISIBLE = 20  # seconds that a file may take to show on another host
# Options that are each process's own.
OWN = (
    *("--distributed.", "--process.", "--profile."),
    *("--data.path", "--data.threads", "--data.prefetch", "--data.cache-gib"),
)
ARRAY = "array"  # the key of what stands for an array in JSON


def is_main_process() -> bool:
    """Return whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Return when every process is here, however long one of them takes.

    A collective would wait as well, but gloo's for half a minute only.
    """
    multihost.get_barrier_sync_fn()(key=name, timeout_ms=DAY)


def broadcast_from_main(name: str, make: Callable[[], T]) -> T:
    """Return what `make` returns in the first process; only there it is called.

    Args:
        name: of the occasion.
        make: returns what JSON can say, with arrays in it where need be.

    Raises:
        ValueError, Stopped: `make` did, there; every process does. An OSError comes as a
            ValueError.
    """
    if jax.process_count() == 1:
        return make()
    content = _outcome(make) if is_main_process() else b""
    barrier(name)
    size = multihost_utils.broadcast_one_to_all(np.int32(len(content)))
    padded = np.frombuffer(content.ljust(int(size)), np.uint8)
    content = multihost_utils.broadcast_one_to_all(padded).tobytes()
    outcome = json.loads(content, object_hook=_array)
    if "refused" in outcome:
        raise ValueError(outcome["refused"])
    if "stopped" in outcome:
        raise Stopped(outcome["stopped"])
    return outcome["made"]


def _outcome(make: Callable[[], Any]) -> bytes:
    try:
        outcome = {"made": make()}
    except (ValueError, OSError) as error:
        outcome = {"refused": str(error)}
    except Stopped as error:
        outcome = {"stopped": str(error)}
    return json.dumps(outcome, default=_plain).encode()


def _plain(array: np.ndarray) -> dict[str, Any]:
    return {ARRAY: [array.dtype.str, array.shape, array.tobytes().hex()]}


def _array(value: dict[str, Any]) -> Any:
    if [*value] != [ARRAY]:
        return value
    dtype, shape, content = value[ARRAY]
    return np.frombuffer(bytes.fromhex(content), dtype).reshape(shape)


def check_same(values: Mapping[str, Any], rule: str) -> None:
    """Raise a ValueError in every process unless all of them hold the same values.

    Args:
        values: by what they are called in the sentence, as JSON takes them.
        rule: the rest of the sentence: what holds, and a remedy.
    """
    if jax.process_count() == 1:
        return
    digests = [hashlib.sha256(json.dumps(value).encode()).digest() for value in values.values()]
    held = _everywhere(f"same {', '.join(values)}", np.frombuffer(b"".join(digests), np.uint8))
    held = held.reshape(jax.process_count(), len(values), -1)
    same = (held == held[0]).all(axis=2)
    if not same.all():
        names = [name for name, agreed in zip(values, same.all(axis=0), strict=True) if not agreed]
        others = ", ".join(map(str, np.flatnonzero(~same.all(axis=1))))
        raise ValueError(
            f"Process {others} of {jax.process_count()} differs from process 0 in "
            f"{', '.join(names)}; {rule}."
        )


def check_settings(config: Config) -> None:
    """Raise a ValueError in every process unless all were given the same options.

    But for those that each has for itself: its number, its disks and its threads.
    """
    values = {name: value for name, value in flatten(config).items()}
    values = {name: value for name, value in values.items() if not name.startswith(OWN)}
    check_same(values, "one run has one command: give all its processes the same options")


def check_shared(folder: Path) -> None:
    """Raise a ValueError in every process unless all of them see this folder of the first one's."""
    if jax.process_count() == 1:
        return
    token = broadcast_from_main("token", lambda: uuid.uuid4().hex)
    path = folder / f"seen_by_all.{token}"
    if is_main_process():
        path.touch()
    barrier("token written")
    seen = _everywhere("token seen", np.array([_appears(path)]))[:, 0]
    if is_main_process():
        path.unlink()
    if not seen.all():
        raise ValueError(
            f"--workdir {folder}: process {', '.join(map(str, np.flatnonzero(~seen)))} of "
            f"{jax.process_count()} has another folder of that name; a run has one, which all its "
            "processes see: name one on a disk that they share."
        )


def check_images(rows: Sequence[slice], shown: int) -> None:
    """Raise a ValueError in every process unless those with the same rows read the same images.

    Where two processes hold the towers of the same images, a file that one of them alone cannot
    read, and replaces, would let the halves of the network drift apart unseen.

    Args:
        rows: those that this process loads.
        shown: a checksum of the images' numbers so far, 32 bits.
    """
    if jax.process_count() == 1:
        return
    held = _everywhere("images", np.array([zlib.crc32(repr(rows).encode()), shown], np.uint32))
    for process, (block, checksum) in enumerate(held):
        fellow = int(np.argmax(held[:, 0] == block))
        if held[fellow, 1] != checksum:
            raise ValueError(
                f"Processes {fellow} and {process}, which hold the towers of the same images, have "
                "not read the same since the last checkpoint; one has left out a file that it "
                "could not read, and warned of it: make that readable for both, and the same "
                "command goes on from the last checkpoint."
            )


def _appears(path: Path) -> bool:
    end = time.monotonic() + VISIBLE
    while not path.exists() and time.monotonic() < end:
        next(path.parent.iterdir(), None)  # has NFS look again
        time.sleep(0.2)
    return path.exists()


def _everywhere(name: str, array: np.ndarray) -> np.ndarray:
    """Return the array of every process, stacked in their order."""
    barrier(name)
    return np.asarray(multihost_utils.process_allgather(array))


def any_process_requests_stop(asked: Callable[[], bool], mesh: Mesh) -> Callable[[], bool]:
    """Return what says whether any process had been asked by the time of the call before.

    Every process is to call it equally often. The answer of one call comes with the next, so that
    nobody waits for the devices, and all learn of it at the same step.
    """
    if jax.process_count() == 1:
        return asked
    answers = _answers(asked, towers.make_any_reduce(mesh))
    return lambda: next(answers)


def _answers(asked: Callable[[], bool], ask: Callable[[bool], Array]) -> Iterator[bool]:
    before = ask(asked())
    yield False
    while True:
        now = ask(asked())
        yield bool(before)
        before = now
