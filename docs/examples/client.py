"""A client of kvservice in thirty lines: every op, and retries that are applied once.

    pip install websockets
    python client.py [ws://127.0.0.1:7400/v1/ws]
"""

import json, sys, time, uuid
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect


class Client:
    def __init__(self, url):
        self.url, self.session = url, str(uuid.uuid4())
        self.socket, self.last_id, self.opened = None, 0, None

    def call(self, op, **fields):
        """Sends one request, until it is answered. It keeps its id, so it is applied once."""
        self.last_id += 1
        request = {"id": self.last_id, "op": op, **fields}
        sent, deadline = False, time.monotonic() + 30
        while True:
            try:
                if self.socket is None:
                    self.socket = connect(self.url).__enter__()  # open until it breaks, or the end
                    hello = self.exchange({"id": 2**53 - 1, "op": "hello", "session": self.session})
                    if "error" in hello:
                        raise OSError(hello["error"]["message"])
                    before, self.opened = self.opened, hello["opened"]
                    if sent and self.opened != before:  # the server forgot the session it was sent in
                        raise SystemExit(f"outcome unknown: {request}")
                sent = True
                answer = self.exchange(request)
                if answer.get("error", {}).get("code") not in ("unavailable", "timeout", "busy"):
                    return answer
            except (OSError, WebSocketException):
                self.socket = None
            if time.monotonic() > deadline:
                raise SystemExit(f"no answer: {request}")
            time.sleep(0.05)

    def exchange(self, request):
        self.socket.send(json.dumps(request))
        return json.loads(self.socket.recv(timeout=10))


if __name__ == "__main__":
    client = Client(sys.argv[1] if len(sys.argv) > 1 else "ws://127.0.0.1:7400/v1/ws")
    print(client.call("set", key="color", value="red"))
    print(client.call("get", key="color"))
    print(client.call("testset", key="color", test="red", value="blue"))
    print(client.call("list", prefix="col"))
    print(client.call("delete", key="color"))
    print(client.call("status")["mode"])
    # A counter that only ever goes up by one: a write that was lost, or applied twice, would
    # make a later test fail. Kill any node meanwhile, or restart the front-end.
    client.call("delete", key="counter")
    for count in range(1, 1001):
        test = str(count - 1) if count > 1 else None
        answer = client.call("testset", key="counter", test=test, value=str(count))
        assert answer.get("swapped"), (count, answer)
        print("counter", count, flush=True)
    assert client.call("get", key="counter")["value"] == "1000"
