"""Downloads over connections that break, from servers that send anything: whole, or not there."""

import errno
import hashlib
import re
import socket

import numpy as np
import pytest

from alexnet_jax.storage import download as module
from alexnet_jax.storage.download import download
from tests.loopback import serving

CONTENT = np.random.default_rng(0).bytes(1_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
LIMIT = 2_000_000


@pytest.fixture(autouse=True)
def _direct_and_quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def get(server, path, digest=DIGEST, algorithm="sha256", **options):
    download(server.url, path, algorithm, digest, LIMIT, **options)


def refusal(server, path, **options):
    """Return the message of a download that is refused; the file is not there afterwards."""
    with pytest.raises(ValueError, match=re.escape(server.url)) as error:
        get(server, path, **options)
    assert not path.exists()
    message = str(error.value)
    assert str(path) in message  # where it can be put by hand
    return message


def partial(path):
    return path.with_name(path.name + module.SUFFIX)


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        ("sha256", DIGEST),
        ("sha256", DIGEST[:8]),
        ("sha1", hashlib.sha1(CONTENT).hexdigest()),
    ],
)
def test_a_file_arrives_whole(algorithm, digest, tmp_path):
    with serving(CONTENT) as server:
        get(server, tmp_path / "a", digest, algorithm)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_a_redirection_is_followed(tmp_path):
    with serving(CONTENT, redirect="/moved") as server:
        get(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_cut_connections_are_continued(tmp_path):
    with serving(CONTENT, cut_after=[300_000, 1, 200_000]) as server:
        get(server, tmp_path / "a")
        assert server.asked == ["", "bytes=300000-", "bytes=300001-", "bytes=500001-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_the_next_call_continues_what_the_last_one_kept(tmp_path):
    with serving(CONTENT, cut_after=[400_000, 0]) as server:
        message = refusal(server, tmp_path / "a")
        assert "400,000 bytes are kept" in message
        assert partial(tmp_path / "a").read_bytes() == CONTENT[:400_000]
        get(server, tmp_path / "a")
        assert server.asked[-1] == "bytes=400000-"
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_without_ranges_it_begins_again(tmp_path):
    partial(tmp_path / "a").write_bytes(CONTENT[:400_000])
    with serving(CONTENT, ranges=False) as server:
        get(server, tmp_path / "a")
        assert server.asked == ["bytes=400000-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_without_ranges_and_always_cut_it_ends(tmp_path):
    with serving(CONTENT, ranges=False, cut_after=[400_000] * 9) as server:
        assert "400,000 of 1,000,000 bytes" in refusal(server, tmp_path / "a")
        assert len(server.asked) == 2


def test_another_part_than_asked_for_is_not_used(tmp_path):
    partial(tmp_path / "a").write_bytes(CONTENT[:400_000])
    with serving(CONTENT, wrong_range=True) as server:
        get(server, tmp_path / "a")
        assert server.asked == ["bytes=400000-", ""]
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("more", [b"", b"more"], ids=["whole", "longer"])
def test_a_part_that_is_whole_or_longer(more, tmp_path):
    """As a process leaves it that is killed before it has verified the digest."""
    partial(tmp_path / "a").write_bytes(CONTENT + more)
    with serving(CONTENT) as server:
        get(server, tmp_path / "a")
        assert len(server.asked) == 1 + bool(more)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_part_of_another_file_is_given_up(tmp_path):
    partial(tmp_path / "a").write_bytes(b"x" * 400_000)
    with serving(CONTENT) as server:
        get(server, tmp_path / "a")
        assert server.asked == ["bytes=400000-", ""]
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"announced": None, "cut_after": [400_000] * 9},  # nothing says that more was to come
        {"announced": 999_000},  # the server sends more than it announced
    ],
)
def test_another_file_is_refused_and_nothing_is_kept(how, tmp_path):
    wrong = "0" * 64 if not how else DIGEST
    with serving(CONTENT, **how) as server:
        message = refusal(server, tmp_path / "a", digest=wrong)
    sent = CONTENT[: {None: 400_000}.get(how.get("announced", 0), how.get("announced"))]
    assert wrong in message
    assert hashlib.sha256(sent).hexdigest() in message
    assert [*tmp_path.iterdir()] == []


def test_fewer_bytes_than_announced_are_not_the_file(tmp_path):
    with serving(CONTENT, announced=1_000_001, ranges=False) as server:
        assert "1,000,000 of 1,000,001" in refusal(server, tmp_path / "a")


@pytest.mark.parametrize("announced", [0, None])
def test_more_bytes_than_any_such_file_has(announced, tmp_path):
    with serving(CONTENT * 3, announced=announced) as server:
        message = refusal(server, tmp_path / "a")
    assert ("3,000,000" if announced == 0 else "2,000,000") in message
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("status", [403, 404, 407, 500, 503])
def test_errors_of_a_server_or_a_proxy(status, tmp_path):
    with serving(CONTENT, status=status) as server:
        assert f"HTTP {status}" in refusal(server, tmp_path / "a")
        assert len(server.asked) == 1
    assert [*tmp_path.iterdir()] == []


def test_an_error_keeps_what_there_was(tmp_path):
    partial(tmp_path / "a").write_bytes(CONTENT[:400_000])
    with serving(CONTENT, status=503) as server:
        assert "400,000 bytes are kept" in refusal(server, tmp_path / "a")
    assert partial(tmp_path / "a").read_bytes() == CONTENT[:400_000]


def test_a_server_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    with serving(CONTENT, seconds=0.3) as server:
        assert "no answer within 0.1 seconds" in refusal(server, tmp_path / "a")


def test_no_server_and_no_name(tmp_path, monkeypatch):
    with serving(CONTENT) as server:
        pass
    assert "refused" in refusal(server, tmp_path / "a")  # by nobody, after its end

    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known" in refusal(server, tmp_path / "a")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "nonsense", "http://[", "http://a:b"])
def test_a_proxy_that_is_none(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with serving(CONTENT) as server:
        assert "connect to the network" in refusal(server, tmp_path / "a")
        assert server.asked == []


def test_a_full_disk_names_the_file_and_keeps_what_fits(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def tell(self):
            return self.file.tell()

        def write(self, chunk):
            if self.file.tell() + len(chunk) > 500_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(chunk)

    path_type = type(tmp_path)
    opened = path_type.open
    with monkeypatch.context() as patch:
        patch.setattr(
            path_type,
            "open",
            lambda self, mode="r", *a, **k: (
                Full(opened(self, mode, *a, **k)) if mode == "wb" else opened(self, mode, *a, **k)
            ),
        )
        with serving(CONTENT) as server, pytest.raises(OSError, match="No space") as error:
            get(server, tmp_path / "a")
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(partial(tmp_path / "a"))
    kept = partial(tmp_path / "a").stat().st_size
    assert 0 < kept <= 500_000
    with serving(CONTENT) as server:
        get(server, tmp_path / "a")
        assert server.asked == [f"bytes={kept}-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_call_is_continued(kind, tmp_path):
    calls = iter(range(100))

    def check_stop():
        if next(calls) == 3:
            raise kind

    with serving(CONTENT) as server:
        with pytest.raises(kind):
            get(server, tmp_path / "a", check_stop=check_stop)
        kept = partial(tmp_path / "a").stat().st_size
        assert 0 < kept < len(CONTENT)
        assert not (tmp_path / "a").exists()
        get(server, tmp_path / "a")
        assert server.asked == ["", f"bytes={kept}-"]
    assert (tmp_path / "a").read_bytes() == CONTENT
