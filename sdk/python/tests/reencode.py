"""Reads lines "Message hex", and writes each message's bytes as this package encodes what it has decoded."""

import sys

from dno_sdk import wire

for line in sys.stdin:
    name, _, data = line.strip().partition(" ")
    print(wire.encode(name, wire.decode(name, bytes.fromhex(data))).hex())
