"""What the processes of a run have to agree on; with one process none of it costs anything."""

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

from alexnet_jax.config import PER_PROCESS, Config, fields_marked, flatten, invalid
from alexnet_jax.model import towers
from alexnet_jax.storage.names import printable
from alexnet_jax.training.stopping import Stopped

T = TypeVar("T")

DAY = 24 * 3600 * 1000  # milliseconds; a process that dies is noticed long before
VISIBLE = 20  # seconds that a file may take to become visible on another host
ARRAY = "array"  # the key of what stands for an array in JSON


def is_main_process() -> bool:
    """Return whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def print_from_main(text: str) -> None:
    """Print lines, from the main process only."""
    if is_main_process():
        print(printable(text, keep="\n"), flush=True)


def barrier(name: str) -> None:
    """Return when every process is here, however long one of them takes.

    A collective would wait as well, but gloo's for half a minute only.
    """
    multihost.get_barrier_sync_fn()(key=name, timeout_ms=DAY)


def broadcast_from_main(name: str, make: Callable[[], T]) -> T:
    """Return what `make` returns in the main process; it is called only there.

    Args:
        name: of the occasion.
        make: returns JSON, which may contain arrays.

    Raises:
        ValueError, Stopped: `make` did; every process does. An OSError becomes a ValueError.
    """
    if jax.process_count() == 1:
        return make()
    content = _outcome(make) if is_main_process() else b""
    barrier(name)
    size = multihost_utils.broadcast_one_to_all(np.int32(len(content)))
    padded = np.frombuffer(content.ljust(int(size)), np.uint8)
    content = multihost_utils.broadcast_one_to_all(padded).tobytes()
    outcome = json.loads(content, object_hook=_to_array)
    if "error" in outcome:
        raise ValueError(outcome["error"])
    if "stopped" in outcome:
        raise Stopped(outcome["stopped"])
    return outcome["result"]


def _outcome(make: Callable[[], Any]) -> bytes:
    try:
        outcome = {"result": make()}
    except (ValueError, OSError) as error:
        outcome = {"error": str(error)}
    except Stopped as error:
        outcome = {"stopped": str(error)}
    return json.dumps(outcome, default=_from_array).encode()


def _from_array(array: np.ndarray) -> dict[str, Any]:
    return {ARRAY: [array.dtype.str, array.shape, array.tobytes().hex()]}


def _to_array(value: dict[str, Any]) -> Any:
    if [*value] != [ARRAY]:
        return value
    dtype, shape, content = value[ARRAY]
    return np.frombuffer(bytes.fromhex(content), dtype).reshape(shape)


def check_same(values: Mapping[str, Any], remedy: str) -> None:
    """Raise a ValueError in every process unless all of them hold the same values.

    Args:
        values: by their names in the message, as JSON takes them.
        remedy: the rest of the sentence.
    """
    if jax.process_count() == 1:
        return
    digests = [hashlib.sha256(json.dumps(value).encode()).digest() for value in values.values()]
    gathered = _all_gather(f"same {', '.join(values)}", np.frombuffer(b"".join(digests), np.uint8))
    gathered = gathered.reshape(jax.process_count(), len(values), -1)
    same = (gathered == gathered[0]).all(axis=2)
    if not same.all():
        names = [name for name, agreed in zip(values, same.all(axis=0), strict=True) if not agreed]
        different = ", ".join(map(str, np.flatnonzero(~same.all(axis=1))))
        raise ValueError(
            f"{', '.join(names)}: must be the same in all processes, and process {different} of "
            f"{jax.process_count()} differs from process 0; {remedy}."
        )


def check_same_config(config: Config) -> None:
    """Raise a ValueError in every process unless all have the same settings.

    Except for those that belong to a process: its number, its disks and its threads.
    """
    own = fields_marked(PER_PROCESS)
    values = {name: value for name, value in flatten(config).items() if name not in own}
    check_same(values, "start them with the same options")


def check_shared(folder: Path) -> None:
    """Raise a ValueError in every process unless all of them see this folder of the main one."""
    if jax.process_count() == 1:
        return
    token = broadcast_from_main("token", lambda: uuid.uuid4().hex)
    path = folder / f"seen_by_all.{token}"
    if is_main_process():
        path.touch()
    barrier("token written")
    visible = _all_gather("token seen", np.array([_becomes_visible(path)]))[:, 0]
    if is_main_process():
        path.unlink()
    if not visible.all():
        blind = ", ".join(map(str, np.flatnonzero(~visible)))
        rule = f"process {blind} of {jax.process_count()} has another folder of that name"
        raise invalid("workdir", folder, rule, "use a folder on a disk that all processes share")


def check_same_images(rows: Sequence[slice], checksum: int) -> None:
    """Raise a ValueError in every process unless those with the same rows read the same images.

    If two processes hold the towers of the same images, a file that only one of them cannot read,
    and replaces, would let the halves of the network drift apart unnoticed.

    Args:
        rows: those that this process loads.
        checksum: of the images' numbers so far, 32 bits.
    """
    if jax.process_count() == 1:
        return
    local = np.array([zlib.crc32(repr(rows).encode()), checksum], np.uint32)
    gathered = _all_gather("images", local)
    for process, (block, own) in enumerate(gathered):
        partner = int(np.argmax(gathered[:, 0] == block))
        if gathered[partner, 1] != own:
            raise ValueError(
                f"Processes {partner} and {process} hold the towers of the same images and have "
                "not read the same ones since the last checkpoint: one has skipped an unreadable "
                "file, and warned of it; make that file readable for both, and run the same "
                "command to resume from the last checkpoint."
            )


def _becomes_visible(path: Path) -> bool:
    end = time.monotonic() + VISIBLE
    while not path.exists() and time.monotonic() < end:
        next(path.parent.iterdir(), None)  # makes NFS refresh the folder
        time.sleep(0.2)
    return path.exists()


def _all_gather(name: str, array: np.ndarray) -> np.ndarray:
    """Return the array of every process, stacked in their order."""
    barrier(name)
    return np.asarray(multihost_utils.process_allgather(array))


def any_process_requests_stop(should_stop: Callable[[], bool], mesh: Mesh) -> Callable[[], bool]:
    """Return a function that says whether any process should stop, as of its previous call.

    Every process has to call it equally often. The answer to one call comes with the next, so that
    no process waits for the devices, and all learn of it at the same step.
    """
    if jax.process_count() == 1:
        return should_stop
    answers = _delayed_answers(should_stop, towers.make_any_reduce(mesh))
    return lambda: next(answers)


def _delayed_answers(
    should_stop: Callable[[], bool], any_reduce: Callable[[bool], Array]
) -> Iterator[bool]:
    previous = any_reduce(should_stop())
    yield False
    while True:
        current = any_reduce(should_stop())
        yield bool(previous)
        previous = current
