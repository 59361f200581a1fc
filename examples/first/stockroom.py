"""A stock room as two HTTP tools, in nothing but the standard library: python3 examples/first/stockroom.py

POST /check {"item"} reads, POST /order {"item", "quantity"} writes. The body is the arguments, the answer is JSON. Signalbox sends every
repeat of one write with the same Idempotency-Key; a receiver that remembers it makes the write once.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STOCK = {"tea": 3, "coffee": 40, "cups": 0}
ORDERS: dict[str, dict[str, object]] = {}  # by Idempotency-Key


class StockRoom(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        args = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/check":
            return self.answer(200, {"item": args["item"], "left": STOCK[args["item"]]})
        if self.path == "/order":
            number = f"order-{len(ORDERS) + 1}"
            return self.answer(200, ORDERS.setdefault(self.headers["Idempotency-Key"], {"order_id": number} | args))
        self.answer(404, {"error": "there are /check and /order"})

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    print("The stock room is at http://127.0.0.1:9200", flush=True)
    ThreadingHTTPServer(("127.0.0.1", 9200), StockRoom).serve_forever()
