#!/usr/bin/env python3
"""Acquires a VM, runs a command in it, releases it; the standard library is enough.

    ./acquire.py linux uname -a
"""
import base64
import http.client
import json
import os
import socket
import sys


class Daemon(http.client.HTTPConnection):
    """vmfactoryd behind its unix socket. One connection, used again for each request."""

    def __init__(self, path):
        super().__init__("vmfactory")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self.path)

    def ask(self, method, path, body=None):
        """The open answer; whoever asks reads it to its end."""
        self.request(method, path, json.dumps(body) if body is not None else None,
                     {"Content-Type": "application/json"})
        answer = self.getresponse()
        if answer.status >= 400:
            error = json.loads(answer.read())["error"]
            raise RuntimeError(f"{error['code']}: {error['message']} {error.get('hint') or ''}")
        return answer

    def acquire(self, template, **options):
        return json.load(self.ask("POST", "/v1/vms", {"template": template, **options}))

    def execute(self, vm, argv):
        """Runs argv, passing its output on; returns its exit code, 128 + N for signal N."""
        for line in self.ask("POST", f"/v1/vms/{vm}/exec", {"argv": argv}):
            piece = json.loads(line)
            if "error" in piece:
                raise RuntimeError(piece["error"]["message"])
            if "exit" in piece:
                code, signal = piece["exit"].get("code"), piece["exit"].get("signal")
                return code if code is not None else 128 + signal
            out = sys.stdout if piece["stream"] == "stdout" else sys.stderr
            data = piece["data"].encode() if "data" in piece else base64.b64decode(piece["base64"])
            out.buffer.write(data)
            out.buffer.flush()
        raise RuntimeError("the daemon ended before the command did")

    def release(self, vm):
        self.ask("DELETE", f"/v1/vms/{vm}").read()


def main():
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} TEMPLATE COMMAND [ARGUMENT...]")
    daemon = Daemon(os.environ.get("VMFACTORY_SOCKET", "/run/vmfactory/api.sock"))
    vm = daemon.acquire(sys.argv[1], ttl_ms=60000)
    print(f"{vm['id']}: {vm['source']} in {vm['total_us']} us ({vm['reason']})", file=sys.stderr)
    try:
        code = daemon.execute(vm["id"], sys.argv[2:])
    finally:
        daemon.close()  # if execute was interrupted, its answer is still on the old connection
        daemon.release(vm["id"])
    sys.exit(code)


if __name__ == "__main__":
    main()
