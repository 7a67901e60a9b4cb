#!/usr/bin/env python3
# An oracle without meaning: it prefers by a hash of the two texts. A method that learns from its
# verdicts learns nothing. Needs Python only.
import hashlib, json, sys

for line in sys.stdin:
    q = json.loads(line)
    a, b = q["a"], q["b"]
    digest = hashlib.sha256("\0".join(sorted([a, b])).encode()).digest()
    print(json.dumps({"id": q["id"], "p": float((digest[0] & 1) == (a < b))}), flush=True)
