"""Reading from a web server that knows no ETag."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from astropy.io import fits

from lazyccd import open_fits
from lazyccd.errors import FormatError, MissingFileError, SourceChangedError


class WholeFiles(SimpleHTTPRequestHandler):
    """A server that sends whole files, whatever part is asked for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Parts(WholeFiles):
    """A server of files by parts, as observatories have: without ETag, with the time of the last change."""

    def do_GET(self) -> None:
        """Send the part that is asked for."""
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


class Broken(WholeFiles):
    """A server that fails."""

    def do_GET(self) -> None:
        """Send an error."""
        self.send_error(503)

    def do_HEAD(self) -> None:
        """Send an error."""
        self.send_error(503)


@contextmanager
def serving(folder: Path, handler: type[SimpleHTTPRequestHandler]) -> Iterator[str]:
    """Serve a folder; give its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """The pixels come by HTTP; a file of the same size that was changed later is refused."""
    path, pixels = tmp_path / "a.fits", np.arange(12, dtype=np.float32).reshape(3, 4)
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu"})).writeto(path)
    with serving(tmp_path, Parts) as url:
        frame = open_fits(f"{url}/a.fits")
        np.testing.assert_array_equal(frame.data.values, pixels)
        os.utime(path, (10**9, 10**9))
        with pytest.raises(SourceChangedError, match=r"a\.fits changed .* 2001"):
            frame.compute()


def test_what_went_wrong_is_said(tmp_path: Path) -> None:
    """A server without parts of files, one that fails, one that is not there, and a file that is not."""
    fits.writeto(tmp_path / "a.fits", np.zeros((200, 200)))
    with serving(tmp_path, WholeFiles) as url:
        with pytest.raises(FormatError, match="does not give parts of files; download it first"):
            open_fits(f"{url}/a.fits")
        with pytest.raises(MissingFileError, match=r"b\.fits does not exist"):
            open_fits(f"{url}/b.fits")
    with serving(tmp_path, Broken) as url, pytest.raises(FormatError, match=r"cannot be read.*503"):
        open_fits(f"{url}/a.fits")
    with pytest.raises(FormatError, match=r"cannot be read.*onnect"):
        open_fits(f"{url}/a.fits")
