"""A Hugging Face Hub on this machine: as much of its HTTP interface as model uploads need."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_the_token_of_this_test"


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory; one commit per upload, every branch is `main`."""

    protocol_version = "HTTP/1.1"
    repos: dict[str, dict[str, bytes]]
    requests: list[str]

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.requests.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            name = json.loads(body)
            repo = f"{name['organization']}/{name['name']}"
            if repo in self.repos:
                return self._json({"error": "exists", "url": self._url(repo)}, 409)
            self.repos[repo] = {}
            return self._json({"url": self._url(repo), "name": repo})
        if path == "/api/validate-yaml":
            front_matter = json.loads(body)["content"].split("---")[1]
            assert "library_name: hear_msm_mae" in front_matter
            return self._json({"errors": [], "warnings": []})
        repo, action = self._repo_api(path)
        if action[:1] == ["preupload"]:
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            return self._json({"files": [m | {"shouldIgnore": False, "oid": None} for m in modes]})
        if action[:1] == ["commit"]:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    assert line["value"]["encoding"] == "base64"
                    content = base64.b64decode(line["value"]["content"])
                    self.repos[repo][line["value"]["path"]] = content
            commit = self._commit(repo)
            url = f"{self._url(repo)}/commit/{commit}"
            return self._json({"success": True, "commitOid": commit, "commitUrl": url})
        return self._json({"error": f"this fake has no {path}"}, 501)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.requests.append(f"{self.command} {path}")
        if path.startswith("/api/models/"):
            repo, action = self._repo_api(path)
            if repo not in self.repos:
                return self._error("RepoNotFound", 404)
            if action[:1] == ["revision"] and action[1:] not in (["main"], [self._commit(repo)]):
                return self._error("RevisionNotFound", 404)
            files = [
                {"rfilename": name, "path": name, "type": "file", "size": len(content)}
                | {"oid": _sha1(content)}
                for name, content in self.repos[repo].items()
            ]
            if action[:1] == ["tree"]:
                return self._json(files)
            return self._json({"id": repo, "sha": self._commit(repo), "siblings": files})
        user, name, _, _, file = path.lstrip("/").split("/", 4)  # user/repo/resolve/main/file
        repo = f"{user}/{name}"
        if repo not in self.repos:
            return self._error("RepoNotFound", 404)
        if file not in self.repos[repo]:
            return self._error("EntryNotFound", 404)
        content = self.repos[repo][file]
        headers = {"X-Repo-Commit": self._commit(repo), "ETag": f'"{_sha1(content)}"'}
        return self._send(content, 200, headers)

    do_HEAD = do_GET

    def log_message(self, format, *args):
        pass

    def _repo_api(self, path: str) -> tuple[str, list[str]]:
        """("user/repo", the rest) of /api/models/user/repo/..."""
        parts = path.removeprefix("/api/models/").split("/")
        return "/".join(parts[:2]), parts[2:]

    def _commit(self, repo: str) -> str:
        return _sha1(repr(sorted(self.repos[repo].items())).encode())

    def _url(self, repo: str) -> str:
        return f"http://{self.headers['Host']}/{repo}"

    def _json(self, value, status: int = 200):
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def _error(self, code: str, status: int):
        self._send(b"{}", status, {"X-Error-Code": code, "Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str]):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def fake_hub():
    """(address, repositories by name, requests that came in)."""
    handler = type("RunningHub", (Hub,), {"repos": {}, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.repos, handler.requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
