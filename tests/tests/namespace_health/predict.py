"""Where each session should be, computed from docs/order.md alone.

Reads {"servers": {name: weight}, "dead": [name], "keys": [hexadecimal]} and prints {key: [first, first live]}.
The argument is docs/vectors/order.py, an implementation of the order that shares nothing with the product.
"""

import importlib.util
import json
import sys


def main():
    spec = importlib.util.spec_from_file_location("order", sys.argv[1])
    order = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(order)
    question = json.load(sys.stdin)
    names = {order.server_number(name): name for name in question["servers"]}
    pool = {order.server_number(name): weight for name, weight in question["servers"].items()}
    members, table = sorted(pool), order.fill(pool)
    answer = {}
    for key in question["keys"]:
        sequence = [names[number] for number in order.order(members, table, int(key, 16))]
        answer[key] = [sequence[0], next(name for name in sequence if name not in question["dead"])]
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
