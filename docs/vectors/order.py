#!/usr/bin/env python3
"""Checks order.json against docs/order.md, of which this is an independent implementation.

Usage: order.py [order.json]
Exit status 0: every vector is met.
"""

import json
import math
import pathlib
import sys
import zlib

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1


def fnv(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & MASK64
    return h


def mix(x):
    z = (x + 0x9E3779B97F4A7C15) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def server_number(name):
    return mix(fnv(name.encode()))


def service_id(name):
    return (server_number(name) >> 32) or 1


def power_of_two(least):
    """The least power of two that is not below `least`."""
    power = 1
    while power < least:
        power *= 2
    return power


def counting_weights(pool):
    """{server number: weight} of the servers that take part."""
    weights = {number: weight for number, weight in pool.items() if weight > 0}
    if not weights:
        weights = {number: 1 for number in pool}
    divisor = math.gcd(*weights.values())
    weights = {number: weight // divisor for number, weight in weights.items()}
    floor = -(-2 * sum(weights.values()) // (1 << 20))
    return {number: max(weight, floor) for number, weight in weights.items()}


def quotas(weights, slots):
    total = sum(weights.values())
    result = {number: slots * weight // total for number, weight in weights.items()}
    by_remainder = sorted(weights, key=lambda number: (-(slots * weights[number] % total), mix(number)))
    for number in by_remainder[: slots - sum(result.values())]:
        result[number] += 1
    return result


class Server:
    """One server's walk through the points."""

    def __init__(self, number, weight, quota, points):
        h = mix(number)
        self.number = number
        self.weight = weight
        self.quota = quota
        self.credit = 0
        self.ahead = points
        self.points = points
        self.point = h & MASK32
        self.skip = (h >> 32) | 1
        self.growth = (mix(h) & MASK32) // 8 * 8 + 4

    def visit(self):
        visited = self.point % self.points
        self.point = (self.point + self.skip) & MASK32
        self.skip = (self.skip + self.growth) & MASK32
        self.ahead -= 1
        return visited


def fill(pool):
    """Owner of each slot, by server number."""
    weights = counting_weights(pool)
    n, total, least = len(weights), sum(weights.values()), min(weights.values())
    units = max(16384, 24 * n)
    points = power_of_two(units)
    slots = max(
        points,
        power_of_two(100 * n),
        power_of_two(min(1 << 20, -(-50 * total // least))),
    )
    half = points // 2
    # Free slots of each unit, by its first slot.
    free = {}
    for point in range(points):
        first, stride = (point, points) if point % half < units - half else (point % half, half)
        free.setdefault(first, list(range(first, slots, stride)))
    table = [None] * slots
    share = quotas(weights, slots)
    active = [Server(number, weights[number], share[number], points) for number in sorted(weights)]
    while True:
        active = [server for server in active if server.quota > 0]
        if not active:
            return table
        price = sum(server.weight * server.ahead for server in active) // len(active) * 8
        for server in active:
            server.credit += server.weight * server.ahead
            while server.credit >= price and server.quota > 0:
                server.credit -= price
                point = server.visit()
                unit = free[point] if point % half < units - half else free[point % half]
                for slot in unit[: server.quota]:
                    table[slot] = server.number
                taken = min(len(unit), server.quota)
                del unit[:taken]
                server.quota -= taken


def crc(key, i):
    return zlib.crc32(key.to_bytes(8, "big") + bytes([i]))


def order(members, table, key):
    """Server numbers in the order in which the session tries them."""
    sequence = [table[crc(key, i) % len(table)] for i in range(16)]
    start = crc(key, 16) % len(members)
    sequence += members[start:] + members[:start]
    return list(dict.fromkeys(sequence))


def check_pool(vector):
    pool = {int(server["number"], 16): server["weight"] for server in vector["servers"]}
    members = sorted(pool)
    table = fill(pool)
    assert len(table) == vector["slots"], "slots"
    place = {number: index for index, number in enumerate(members)}
    image = b"".join(place[owner].to_bytes(2, "big") for owner in table)
    assert zlib.crc32(image) == vector["table"], "table"
    if "owned" in vector:
        assert [table.count(number) for number in members] == vector["owned"], "owned"
    for entry in vector["orders"]:
        numbers = order(members, table, int(entry["key"], 16))
        assert len(numbers) == len(members), "order is not complete"
        assert [f"{number:016x}" for number in numbers[:20]] == entry["order"], entry["key"]
    return len(vector["orders"])


def main():
    default = pathlib.Path(__file__).with_name("order.json")
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    vectors = json.loads(path.read_text())
    for entry in vectors["names"]:
        assert f"{server_number(entry['name']):016x}" == entry["server_number"], entry["name"]
        assert service_id(entry["name"]) == entry["service_id"], entry["name"]
    orders = 0
    for vector in vectors["pools"]:
        try:
            orders += check_pool(vector)
        except AssertionError as error:
            sys.exit(f"pool {vector['name']!r}: {error} differs")
    print(f"{len(vectors['names'])} names, {len(vectors['pools'])} pools, {orders} orders: all as published")


if __name__ == "__main__":
    main()
