"""Servers on this machine and archives, for tests of downloads."""

import io
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers with what the test put at this path: bytes, a status, a function."""

    def do_GET(self):
        server = self.server
        server.seen.append(f"{self.command} {self.path}")
        answer = server.answers.get(self.path, 404)
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, int):
            self.send_error(answer)
        elif callable(answer):
            answer(self)
        else:
            self.begin(len(answer))
            if self.command == "GET":
                self.wfile.write(answer)

    do_HEAD = do_GET

    def begin(self, length: int):
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        pass  # clients hang up, as the tests make them


@contextmanager
def serving(handler=Handler):
    """Yields a server, whose address is its `url`."""
    with Server(("127.0.0.1", 0), handler) as server:
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.answers, server.seen = {}, []
        threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
        yield server
        server.shutdown()


def make_zip(members, compression=zipfile.ZIP_STORED) -> bytes:
    """Makes a zip of a dict, or of pairs, of names and contents."""
    members = members.items() if isinstance(members, dict) else members
    with zipfile.ZipFile(file := io.BytesIO(), "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()
