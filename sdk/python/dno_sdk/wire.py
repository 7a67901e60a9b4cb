"""The messages of sdk/pluginpb/plugin.proto as dicts, to and from bytes.

A message is a dict with all its fields; an absent field has its default. Only what the contract uses
of protobuf's encoding is here, so that a plugin needs no more than grpcio.

Source: the Protocol Buffers encoding, https://protobuf.dev/programming-guides/encoding.
"""

import struct


class WireError(ValueError):
    """The bytes are no message of this contract."""


_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5

# Types: a scalar; a message's name; "*" in front: repeated; "?" in front: None where absent;
# "map" is map<string, double>. Names and numbers are those of plugin.proto.
MESSAGES = {
    "Error": {1: ("code", "int32"), 2: ("hint", "string")},
    "ManifestRequest": {},
    "ManifestResponse": {
        1: ("kind", "string"), 2: ("name", "string"), 3: ("version", "string"), 4: ("help", "string"),
        5: ("settings", "*Setting"), 6: ("oracle", "?OracleTraits"), 7: ("loss", "?LossTraits"),
        8: ("sampler", "?SamplerTraits"),
    },
    "Setting": {
        1: ("name", "string"), 2: ("type", "string"), 3: ("default_json", "bytes"), 4: ("help", "string"),
        5: ("min", "?double"), 6: ("max", "?double"), 7: ("one_of", "*string"), 8: ("required", "bool"),
    },
    "OracleTraits": {1: ("form", "string"), 2: ("order_matters", "bool"), 3: ("concurrency", "int32")},
    "LossTraits": {
        1: ("unit", "string"), 2: ("token_level", "bool"), 3: ("no_reference", "bool"),
        4: ("mismatched", "bool"), 5: ("soft_target", "bool"), 6: ("surrogate", "bool"),
    },
    "SamplerTraits": {1: ("uses_generator", "bool")},
    "ConfigureRequest": {1: ("settings_json", "bytes")},
    "ConfigureResponse": {},
    "Message": {1: ("role", "string"), 2: ("content", "string")},
    "Prompt": {
        1: ("id", "string"), 2: ("messages", "*Message"), 3: ("answer", "string"), 4: ("metadata_json", "bytes"),
    },
    "Completion": {
        1: ("text", "string"), 2: ("tokens", "*int32"), 3: ("log_prob", "?double"), 4: ("finish", "string"),
        5: ("source", "string"), 6: ("seed", "fixed64"),
    },
    "JudgeRequest": {1: ("comparisons", "*Comparison")},
    "Comparison": {
        1: ("id", "string"), 2: ("prompt", "?Prompt"), 3: ("candidates", "*string"), 4: ("pairs", "*Ordered"),
    },
    "Ordered": {1: ("a", "int32"), 2: ("b", "int32")},
    "JudgeResponse": {1: ("verdicts", "*Verdicts")},
    "Verdicts": {
        1: ("id", "string"), 2: ("pairs", "*Verdict"), 3: ("assessed", "*Assessment"), 4: ("cost", "double"),
        5: ("model", "string"), 6: ("tokens", "int32"),
    },
    "Verdict": {1: ("p", "double"), 2: ("abstain", "string"), 3: ("reason", "string")},
    "Assessment": {1: ("score", "?double"), 2: ("labels", "map"), 3: ("abstain", "string")},
    "EvaluateRequest": {
        1: ("group", "bytes"), 2: ("policy", "bytes"), 3: ("reference", "bytes"), 4: ("tokens", "bytes"),
        5: ("win_rate", "bytes"), 6: ("win_rate_se", "bytes"), 7: ("teacher", "bytes"),
        8: ("policy_tokens", "*bytes"), 9: ("reference_tokens", "*bytes"),
        10: ("chosen", "bytes"), 11: ("rejected", "bytes"), 12: ("chosen_win_rate", "bytes"),
        13: ("rejected_win_rate", "bytes"), 14: ("target", "bytes"), 15: ("preference", "bytes"),
        16: ("weight", "bytes"), 17: ("unit_weight", "bytes"), 18: ("state", "bytes"),
        19: ("mismatched_policy", "bytes"), 20: ("mismatched_reference", "bytes"),
        21: ("call", "uint32"),
    },
    "EvaluateResponse": {
        1: ("loss", "double"), 2: ("gradient", "bytes"), 3: ("token_gradients", "*bytes"), 4: ("metrics", "map"),
        5: ("state", "bytes"), 6: ("call", "uint32"),
    },
    "SampleRequest": {1: ("prompts", "*Prompt"), 2: ("k", "int32"), 3: ("seeds", "*Seeds"), 4: ("generator", "uint32")},
    "Seeds": {1: ("values", "*fixed64")},
    "SampleResponse": {1: ("completions", "*Completions")},
    "Completions": {1: ("values", "*Completion")},
    "GenerateRequest": {1: ("prompts", "*Messages"), 2: ("seeds", "*Seeds"), 3: ("options", "?GenerateOptions")},
    "Messages": {1: ("values", "*Message")},
    "GenerateOptions": {
        1: ("temperature", "double"), 2: ("top_k", "int32"), 3: ("top_p", "double"), 4: ("min_p", "double"),
        5: ("repetition_penalty", "double"), 6: ("max_tokens", "int32"), 7: ("stop", "*string"),
    },
    "GenerateResponse": {1: ("completions", "*Completions")},
    # Of go-plugin and of gRPC.
    "HealthCheckRequest": {1: ("service", "string")},
    "HealthCheckResponse": {1: ("status", "int32")},
    "Empty": {},
    "ConnInfo": {1: ("service_id", "uint32"), 2: ("network", "string"), 3: ("address", "string")},
    "Status": {1: ("code", "int32"), 2: ("message", "string"), 3: ("details", "*Any")},
    "Any": {1: ("type_url", "string"), 2: ("value", "bytes")},
    "MapEntry": {1: ("key", "?string"), 2: ("value", "?double")},  # both are always written
}

_DEFAULTS = {"string": "", "bytes": b"", "bool": False, "int32": 0, "uint32": 0, "fixed64": 0, "double": 0.0}
_WIRE = {"string": _LEN, "bytes": _LEN, "bool": _VARINT, "int32": _VARINT, "uint32": _VARINT, "fixed64": _I64, "double": _I64}
_MOST_DEPTH = 8  # no message of the contract nests deeper


def new(name):
    """Returns a message whose fields have their defaults."""
    out = {}
    for field, kind in MESSAGES[name].values():
        out[field] = [] if kind[0] == "*" else {} if kind == "map" else None if kind[0] == "?" else _DEFAULTS[kind]
    return out


def encode(name, message):
    """Returns the bytes of a message. Missing keys are absent fields; an unknown key is an error."""
    known = {field for field, _ in MESSAGES[name].values()}
    for key in message:
        if key not in known:
            raise WireError(f"{name} has no field {key!r}")
    out = bytearray()
    for number, (field, kind) in MESSAGES[name].items():
        value = message.get(field)
        try:
            _put(out, number, kind, value)
        except (AttributeError, OverflowError, TypeError, ValueError, struct.error) as e:
            raise WireError(f"{name}.{field}: {e}") from e
    return bytes(out)


def _put(out, number, kind, value):
    if value is None:
        return
    if kind == "map":
        for key in sorted(value):
            _put_field(out, number, "MapEntry", {"key": key, "value": float(value[key])})
    elif kind[0] == "*":
        inner = kind[1:]
        if inner in _WIRE and _WIRE[inner] != _LEN:  # packed
            if len(value):
                packed = b"".join(_scalar(inner, v) for v in value)
                out += _varint(number << 3 | _LEN) + _varint(len(packed)) + packed
        else:
            for v in value:
                _put_field(out, number, inner, v)
    elif kind[0] == "?":
        _put_field(out, number, kind[1:], value)
    elif kind == "double" and struct.pack("<d", value) != bytes(8) or kind != "double" and value != _DEFAULTS[kind]:
        _put_field(out, number, kind, value)


def _put_field(out, number, kind, value):
    if kind in MESSAGES:
        body = encode(kind, value)
        out += _varint(number << 3 | _LEN) + _varint(len(body)) + body
    else:
        out += _varint(number << 3 | _WIRE[kind]) + _scalar(kind, value)


def _scalar(kind, value):
    if kind == "double":
        return struct.pack("<d", value)
    if kind == "fixed64":
        return struct.pack("<Q", value)
    if kind == "string":
        body = value.encode("utf-8", "replace")
        return _varint(len(body)) + body
    if kind == "bytes":
        return _varint(len(value)) + bytes(value)
    low, high = (0, 1 << 32) if kind == "uint32" else (-1 << 31, 1 << 31)
    if not low <= int(value) < high:
        raise ValueError(f"{value} does not fit {kind}")
    return _varint(int(value) % (1 << 64))  # a negative int32 has ten bytes


def _varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def decode(name, data, depth=0):
    """Returns the message that the bytes hold. Fields that the contract does not know are skipped."""
    if depth > _MOST_DEPTH:
        raise WireError("messages within messages, too deep")
    out, fields, at = new(name), MESSAGES[name], 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise WireError(f"{name}: a field has the number 0")
        value, at = _read(data, at, wire)
        if number in fields:
            field, kind = fields[number]
            try:
                _take(out, field, kind, wire, value, depth)
            except WireError as e:
                raise WireError(f"{name}.{field}: {e}") from e
    return out


def _take(out, field, kind, wire, value, depth):
    if kind == "map":
        entry = _value("MapEntry", wire, value, depth)
        out[field][entry["key"] or ""] = entry["value"] or 0.0
    elif kind[0] == "*":
        inner = kind[1:]
        if wire == _LEN and inner in _WIRE and _WIRE[inner] != _LEN:  # packed
            at = 0
            while at < len(value):
                v, at = _read(value, at, _WIRE[inner])
                out[field].append(_value(inner, _WIRE[inner], v, depth))
        else:
            out[field].append(_value(inner, wire, value, depth))
    else:
        out[field] = _value(kind.lstrip("?"), wire, value, depth)


def _value(kind, wire, value, depth):
    if wire != _WIRE.get(kind, _LEN):
        raise WireError(f"wire type {wire} is none of {kind}")
    if kind in MESSAGES:
        return decode(kind, value, depth + 1)
    if kind == "double":
        return struct.unpack("<d", value)[0]
    if kind == "fixed64":
        return struct.unpack("<Q", value)[0]
    if kind == "string":
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as e:
            raise WireError("text that is not UTF-8") from e
    if kind == "bytes":
        return bytes(value)
    if kind == "bool":
        return value != 0
    value &= 0xFFFFFFFF
    return value - (1 << 32) if kind == "int32" and value >> 31 else value


def _read(data, at, wire):
    if wire == _VARINT:
        return _read_varint(data, at)
    if wire == _LEN:
        size, at = _read_varint(data, at)
    elif wire in (_I64, _I32):
        size = 8 if wire == _I64 else 4
    else:
        raise WireError(f"wire type {wire} is not used")
    if size > len(data) - at:
        raise WireError("the message is cut off")
    return data[at:at + size], at + size


def _read_varint(data, at):
    n = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise WireError("the message is cut off")
        byte = data[at]
        at += 1
        n |= (byte & 0x7F) << shift
        if byte < 0x80:
            return n & (1 << 64) - 1, at
    raise WireError("a number of more than ten bytes")
