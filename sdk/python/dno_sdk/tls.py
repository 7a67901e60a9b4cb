"""A self-signed certificate of this process, for mutual TLS with the host, without a library.

Keys are on the curve P-256. Arithmetic in Python takes a few milliseconds, and is not constant in time: the key lives as
long as the process, and only this machine's host ever sees a signature.

Sources: SEC 1 and FIPS 186-5 (ECDSA), SEC 2 (P-256), RFC 5280 (certificates), RFC 5915 (keys).
"""

import base64
import datetime
import hashlib
import secrets

_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


def _double(q):
    x, y, z = q
    yy = y * y % _P
    s = 4 * x * yy % _P
    zz = z * z % _P
    m = 3 * (x - zz) * (x + zz) % _P  # the curve's a is −3
    x3 = (m * m - 2 * s) % _P
    return x3, (m * (s - x3) - 8 * yy * yy) % _P, 2 * y * z % _P


def _add(q, point):
    """Adds a point (x, y) to q = (X, Y, Z), which stands for (X/Z², Y/Z³); Z = 0 is infinity."""
    x1, y1, z1 = q
    x2, y2 = point
    if z1 == 0:
        return x2, y2, 1
    zz = z1 * z1 % _P
    h = (x2 * zz - x1) % _P
    r = (y2 * zz * z1 - y1) % _P
    if h == 0:
        return _double(q) if r == 0 else (1, 1, 0)
    hh = h * h % _P
    hhh, v = h * hh % _P, x1 * hh % _P
    x3 = (r * r - hhh - 2 * v) % _P
    return x3, (r * (v - x3) - y1 * hhh) % _P, h * z1 % _P


def multiply(k):
    """Returns k·G as (x, y), for 0 < k < n."""
    q = (1, 1, 0)
    for bit in bin(k)[2:]:
        q = _double(q)
        if bit == "1":
            q = _add(q, _G)
    inverse = pow(q[2], -1, _P)
    return q[0] * inverse**2 % _P, q[1] * inverse**3 % _P


def sign(key, message):
    """Returns the ECDSA signature (r, s) of the message's SHA-256."""
    e = int.from_bytes(hashlib.sha256(message).digest(), "big")
    while True:
        k = secrets.randbelow(_N - 1) + 1
        r = multiply(k)[0] % _N
        s = pow(k, -1, _N) * (e + r * key) % _N
        if r and s:
            return r, s


# DER: a tag, a length, a body.


def _der(tag, *parts):
    body = b"".join(parts)
    n = len(body)
    if n < 0x80:
        length = bytes([n])
    else:
        size = (n.bit_length() + 7) // 8
        length = bytes([0x80 | size]) + n.to_bytes(size, "big")
    return bytes([tag]) + length + body


def _sequence(*parts):
    return _der(0x30, *parts)


def _integer(n):
    return _der(0x02, n.to_bytes(n.bit_length() // 8 + 1, "big"))


def _oid(text):
    first, second, *rest = (int(part) for part in text.split("."))
    body = bytes([40 * first + second])
    for n in rest:
        group = [n & 0x7F]
        while n := n >> 7:
            group.append(n & 0x7F | 0x80)
        body += bytes(reversed(group))
    return _der(0x06, body)


def _bits(body):
    return _der(0x03, b"\0" + body)


def _time(t):
    tag, form = (0x17, "%y%m%d%H%M%SZ") if t.year < 2050 else (0x18, "%Y%m%d%H%M%SZ")
    return _der(tag, t.strftime(form).encode())


def _extension(oid, value, critical=False):
    return _sequence(_oid(oid), _der(0x01, b"\xff") if critical else b"", _der(0x04, value))


def _pem(label, der):
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


def self_signed():
    """Returns (key in PEM, certificate in PEM, certificate in DER) for the name localhost, made anew."""
    key = secrets.randbelow(_N - 1) + 1
    x, y = multiply(key)
    public = b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big")
    curve, algorithm = _oid("1.2.840.10045.3.1.7"), _sequence(_oid("1.2.840.10045.4.3.2"))  # P-256; ECDSA with SHA-256
    name = _sequence(_der(0x31, _sequence(_oid("2.5.4.3"), _der(0x0C, b"localhost"))))
    now = datetime.datetime.now(datetime.timezone.utc)
    day = datetime.timedelta(days=1)
    extensions = _sequence(
        _extension("2.5.29.15", _der(0x03, b"\x02\x84"), critical=True),  # digitalSignature, keyCertSign
        _extension("2.5.29.37", _sequence(_oid("1.3.6.1.5.5.7.3.1"), _oid("1.3.6.1.5.5.7.3.2"))),  # server, client
        _extension("2.5.29.19", _sequence(_der(0x01, b"\xff")), critical=True),  # a certificate authority
        _extension("2.5.29.17", _sequence(_der(0x82, b"localhost"))),
    )
    body = _sequence(
        _der(0xA0, _integer(2)), _integer(secrets.randbits(127) | 1), algorithm, name,
        _sequence(_time(now - day), _time(now + 3650 * day)), name,
        _sequence(_sequence(_oid("1.2.840.10045.2.1"), curve), _bits(public)),
        _der(0xA3, extensions),
    )
    r, s = sign(key, body)
    certificate = _sequence(body, algorithm, _bits(_sequence(_integer(r), _integer(s))))
    private = _sequence(_integer(1), _der(0x04, key.to_bytes(32, "big")), _der(0xA0, curve), _der(0xA1, _bits(public)))
    return _pem("EC PRIVATE KEY", private), _pem("CERTIFICATE", certificate), certificate
