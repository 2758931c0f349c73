"""Downloads that are resumed where they were cut, and that are whole or not there at all."""

import contextlib
import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from alexnet_jax.storage.atomic import put_in_place
from alexnet_jax.storage.digest import file_digest

CHUNK = 2**18  # bytes at a time
TIMEOUT = 30.0  # seconds without a byte
PAUSE = 1.0  # seconds before a connection that was cut is made again
SUFFIX = ".partial"  # of a file that is not whole; no reader takes one


class _Failed(Exception):
    """A connection could not be made, or it brought nothing; the message is a clause."""


def download(
    url: str,
    path: Path,
    algorithm: str,
    digest: str,
    max_bytes: int,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Download a file that has a known digest.

    What arrives is kept next to `path`, under another name, until it is whole and its digest is
    verified: an interrupted call is continued by the next one, if the server can, and otherwise
    begun again. A proxy is that of the environment (`https_proxy`).

    Args:
        url: http or https.
        path: of the file to make, in a folder that exists. One process at a time, see `lock`.
        algorithm: of the digest, by its name in `hashlib`.
        digest: all of its hexadecimal digits, or the first of them.
        max_bytes: that the file may have, whatever the server says.
        check_stop: called again and again; what it raises ends the download.

    Raises:
        ValueError: the server cannot be reached or does not have the file, or what it sends is
            another file, of which nothing is kept.
        OSError: the file cannot be written.
    """
    partial = path.with_name(path.name + SUFFIX)
    resumed = _size(partial) > 0
    while True:
        try:
            _receive(url, partial, max_bytes, check_stop)
        except _Failed as failure:
            kept = f"; {_size(partial):,} bytes are kept" if _size(partial) else ""
            raise ValueError(
                f"{url}: cannot be downloaded ({failure}{kept}); connect to the network and do the "
                f"same again, or put the file there by hand: {path}."
            ) from failure
        found = file_digest(partial, algorithm)
        if found.startswith(digest):
            put_in_place(partial, path)
            return
        partial.unlink()
        if not resumed:
            raise ValueError(
                f"{url}: what it sends has the {algorithm} digest {found} and must have {digest}, "
                "so nothing of it is kept; do the same again later or in another network, or put "
                f"the file there by hand: {path}."
            )
        resumed = False  # The file on the server may have been another one at first.


def _receive(url: str, partial: Path, max_bytes: int, check_stop: Callable[[], None]) -> None:
    """Receive the rest of a file, over several connections if they are cut."""
    while True:
        before = _size(partial)
        reason = _receive_once(url, partial, max_bytes, check_stop)
        if not reason:
            return
        if _size(partial) <= before:  # also from a server that restarts each time
            raise _Failed(reason)
        time.sleep(PAUSE)


def _receive_once(url: str, partial: Path, max_bytes: int, check_stop: Callable[[], None]) -> str:
    """Receive what one connection brings; return "" if that was all, otherwise why it ended."""
    offset = _size(partial)
    check_stop()
    try:
        response = _open(url, offset)
    except urllib.error.HTTPError as error:
        error.close()
        # Of a range that begins at the end, or past it.
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not offset:
            raise _Failed(f"HTTP {error.code} {error.reason}") from error
        if _total(error.headers.get("Content-Range", "")) == offset:
            return ""
        partial.unlink()
        return _receive_once(url, partial, max_bytes, check_stop)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Failed(_reason(error)) from error
    with response:
        content_range = response.headers.get("Content-Range", "")
        continues = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if continues and not content_range.startswith(f"bytes {offset}-"):
            if not offset:
                raise _Failed(f"it sends a part that it was not asked for ({content_range})")
            partial.unlink()
            return _receive_once(url, partial, max_bytes, check_stop)
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        total = _total(content_range) if continues else total
        if total is not None and total > max_bytes:
            raise _Failed(f"it announces {total:,} bytes, and the file has fewer")
        with (
            _naming(partial),
            partial.open("ab" if continues else "wb") as file,
            tqdm(
                desc=partial.name.removesuffix(SUFFIX),
                total=total,
                initial=file.tell(),
                unit="B",
                unit_scale=True,
                disable=None,
                dynamic_ncols=True,
            ) as bar,
        ):
            while True:
                check_stop()
                try:
                    chunk = response.read1(CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    return _reason(error)
                if not chunk:
                    break
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > max_bytes:
                    break
    if (size := _size(partial)) > max_bytes:
        partial.unlink()
        raise _Failed(f"it sends more than {max_bytes:,} bytes, and the file has fewer")
    if total is not None and size < total:
        return f"the connection was cut after {size:,} of {total:,} bytes"
    return ""


def _open(url: str, offset: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "alexnet_jax", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    # Not `urlopen`, which keeps the proxies of its first call for the life of the process.
    opener = urllib.request.build_opener()
    return opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)


def _total(content_range: str) -> int | None:
    """Return the size of the whole file in "bytes 5-9/10" or "bytes */10"; None if unknown."""
    match = re.fullmatch(r"bytes [\d*-]+/(\d+)", content_range.strip())
    return int(match[1]) if match else None


def _reason(error: Exception) -> str:
    """Return a clause about an error of the network."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(str(text).split()).rstrip(".")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give errors of writing a file its name, which Python leaves out."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
