"""A real https server with a certificate of a CA made for the test."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Page = Callable[[http.server.BaseHTTPRequestHandler], None]


def make_ca(folder: Path) -> Path:
    """`ca.pem`, and a key with a certificate for localhost beside it."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "names", "-out", "server.pem",
    )  # fmt: skip
    return folder / "ca.pem"


class Server:
    """`pages` by path; `asked` are the paths that came. Its name is localhost."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.host = f"localhost:{port}"
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"https://{self.host}{path}"

    def put(self, path: str, data: bytes, length: int | None = None) -> str:
        def page(ask: http.server.BaseHTTPRequestHandler) -> None:
            ask.send_response(200)
            if length != -1:
                ask.send_header("Content-Length", str(len(data) if length is None else length))
            ask.end_headers()
            ask.wfile.write(data)

        self.pages[path] = page
        return self.url(path)

    def redirect(self, path: str, target: str) -> str:
        def page(ask: http.server.BaseHTTPRequestHandler) -> None:
            ask.send_response(302)
            ask.send_header("Location", target)
            ask.send_header("Content-Length", "0")
            ask.end_headers()

        self.pages[path] = page
        return self.url(path)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """With the certificate that make_ca() left in `folder`."""
    holder: list[Server] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            holder[0].asked.append(self.path)
            page = holder[0].pages.get(self.path)
            if page is None:
                self.send_error(404)
            else:
                page(self)

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    class Quiet(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # clients that break off are what is tested

    with Quiet(("127.0.0.1", 0), Answer) as http_server:
        http_server.socket = context.wrap_socket(http_server.socket, server_side=True)
        server = Server(http_server.server_address[1])
        holder.append(server)
        thread = threading.Thread(target=http_server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        http_server.shutdown()
        thread.join(10)
