#!/usr/bin/env python3
"""A model server that dies of some questions, as one that was built for another processor does."""
import http.server
import json
import signal
import sys


class Model(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"status": "ok"} if self.path == "/health" else {"data": MODELS})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][-1]["content"]
        if "die" in asked:
            open(__file__ + ".deaths", "a").write(asked + "\n")
            signal.raise_signal(signal.SIGILL)
        text = {"choices": [{"delta": {"content": "alive"}, "message": {"content": "alive"}}]}
        if not body.get("stream"):
            return self.answer(text)
        self.answer(None, "data: %s\n\ndata: [DONE]\n\n" % json.dumps(text))

    def answer(self, value, text=None):
        body = (text or json.dumps(value)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


MODELS = [{"id": name} for name in sys.argv[sys.argv.index("--alias") + 1].split(",")]
port = int(sys.argv[sys.argv.index("--port") + 1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Model)
print("server is listening on http://127.0.0.1:%d" % server.server_port, file=sys.stderr, flush=True)
server.serve_forever()
