"""Stores behind S3: a real server on loopback, and a proxy before it that answers with errors, silence and cut lines."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits

import lazyccd
from lazyccd.errors import MissingFileError, TargetExistsError, WriteError

SHAPE = (60, 80)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def answers(port: int) -> bool:
    """Return whether somebody listens on a port."""
    with socket.socket() as caller:
        return not caller.connect_ex(("127.0.0.1", port))


class Proxy(BaseHTTPRequestHandler):
    """Hands requests on to the server, or does something worse."""

    protocol_version = "HTTP/1.1"
    upstream = 0
    trouble = ""
    """What happens to requests that write shards of the data: nothing, error, silence, cut, or once each for some."""

    seen: ClassVar[dict[str, int]] = {}

    def answer(self) -> None:
        """Forward one request."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command == "PUT" and "/data/c/" in self.path and self.is_troubled():
            if self.trouble == "silence":
                time.sleep(3)
            if self.trouble in {"silence", "cut"}:
                self.close_connection = True
                return
            self.reply(503, {}, b"<Error><Code>SlowDown</Code><Message>slow down</Message></Error>")
            return
        line = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        headers = {key: value for key, value in self.headers.items() if key.lower() not in {"connection", "expect"}}
        line.request(self.command, self.path, body, headers)
        found = line.getresponse()
        self.reply(found.status, dict(found.getheaders()), found.read())
        line.close()

    def is_troubled(self) -> bool:
        """Return whether this request goes wrong; each path once only if the trouble passes."""
        self.seen[self.path] = self.seen.get(self.path, 0) + 1
        return bool(self.trouble) and (self.trouble != "once" or self.seen[self.path] == 1)

    def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in {"content-length", "connection", "transfer-encoding", "server", "date"}:
                self.send_header(key, value)
        length = headers.get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815


@pytest.fixture(scope="module")
def server() -> Iterator[type[Proxy]]:
    """Start an S3 server and the proxy; return the proxy's class, whose ``trouble`` tests set."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not answers(port):
        assert process.poll() is None, "the S3 server did not start"
        assert time.monotonic() < deadline, "the S3 server does not answer"
        time.sleep(0.1)
    Proxy.upstream = port
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    before = dict(fsspec.config.conf)
    fsspec.config.conf["s3"] = {
        "key": "test",
        "secret": "test",
        "endpoint_url": f"http://127.0.0.1:{proxy.server_address[1]}",
        "config_kwargs": {"read_timeout": 1, "connect_timeout": 5, "retries": {"max_attempts": 1}},
    }
    try:
        fsspec.filesystem("s3").mkdir("archive")
        yield Proxy
    finally:
        fsspec.config.conf.clear()
        fsspec.config.conf.update(before)
        proxy.shutdown()
        proxy.server_close()
        process.terminate()
        process.wait()


@pytest.fixture
def frame(tmp_path: Path, server: type[Proxy], monkeypatch: pytest.MonkeyPatch) -> xr.Dataset:
    """Return a frame of four shards, with a server that works."""
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 2)
    server.trouble = ""
    fits.writeto(tmp_path / "raw.fits", np.random.default_rng(1).integers(0, 9000, SHAPE).astype(np.uint16))
    ds = lazyccd.open_fits(tmp_path / "raw.fits", chunks=(30, 40))
    out: xr.Dataset = lazyccd.create_deviation(ds, 1.5 * u.electron / u.adu, 3 * u.electron)
    return out


def assert_same(store: str, frame: xr.Dataset) -> None:
    """Compare a store with a frame, by our reader and by xarray's."""
    for ds in (lazyccd.open_zarr(store), xr.open_zarr(store, group="0", mask_and_scale=False)):
        for name in frame.data_vars:
            np.testing.assert_array_equal(ds[name], frame[name])


def test_a_store_and_its_levels(frame: xr.Dataset) -> None:
    """Written, refused a second time, replaced, given levels, read; no notes are left."""
    store = "s3://archive/a.zarr"
    lazyccd.to_zarr(frame, store)
    assert_same(store, frame)
    with pytest.raises(TargetExistsError, match="overwrite=True"):
        lazyccd.to_zarr(frame, store)
    lazyccd.to_zarr(lazyccd.multiply(frame, 2.0), store, overwrite=True)
    assert lazyccd.build_pyramid(store, 2) == 2
    np.testing.assert_array_equal(lazyccd.open_zarr(store)["data"], 2 * frame["data"])
    assert lazyccd.open_zarr(store, level=1)["data"].shape == (30, 40)
    assert [name for name in fsspec.filesystem("s3").find("archive") if "lazyccd-progress" in name] == []


@pytest.mark.parametrize("trouble", ["error", "silence", "cut"])
def test_a_server_that_fails(frame: xr.Dataset, server: type[Proxy], trouble: str) -> None:
    """There is no store, the message says what was being written; when the server works again, the same call goes on."""
    store = f"s3://archive/{trouble}.zarr"
    server.trouble = trouble
    with pytest.raises(WriteError, match=rf"s3://archive/{trouble}\.zarr: data \[.*\] cannot be written: "):
        lazyccd.to_zarr(frame, store)
    server.trouble = ""
    with pytest.raises(MissingFileError):
        lazyccd.open_zarr(store)
    lazyccd.to_zarr(frame, store)
    assert_same(store, frame)


def test_errors_that_pass(frame: xr.Dataset, server: type[Proxy]) -> None:
    """A server that asks to slow down is asked again."""
    server.seen.clear()
    server.trouble = "once"
    lazyccd.to_zarr(frame, "s3://archive/once.zarr")
    assert min(server.seen.values()) >= 2
    server.trouble = ""
    assert_same("s3://archive/once.zarr", frame)
