"""Reading from a web server that knows no ETag."""

from __future__ import annotations

import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from astropy.io import fits

from lazyccd import open_fits
from lazyccd.errors import SourceChangedError


class RangeHandler(SimpleHTTPRequestHandler):
    """A server of files by parts, as observatories have: without ETag, with the time of the last change."""

    protocol_version = "HTTP/1.1"

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

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """The pixels come by HTTP; a file of the same size that was changed later is refused."""
    path, pixels = tmp_path / "a.fits", np.arange(12, dtype=np.float32).reshape(3, 4)
    fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu"})).writeto(path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        frame = open_fits(f"http://127.0.0.1:{server.server_port}/a.fits")
        np.testing.assert_array_equal(frame.data.values, pixels)
        os.utime(path, (10**9, 10**9))
        with pytest.raises(SourceChangedError, match=r"a\.fits changed .* 2001"):
            frame.compute()
    finally:
        server.shutdown()
        server.server_close()
