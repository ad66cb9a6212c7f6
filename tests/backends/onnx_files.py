"""Tiny ONNX models written byte by byte (onnx.proto's field numbers), because the package `onnx` is no dependency."""

import struct

FLOAT, UINT8, INT64, STRING, FLOAT16, BFLOAT16 = 1, 2, 7, 8, 10, 16


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field, value):
    return varint(field << 3) + varint(value)


def blob(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def value_info(name, kind, shape):
    dims = b"".join(blob(1, blob(2, d) if isinstance(d, str) else number(1, d)) for d in shape)
    return blob(1, name) + blob(2, blob(1, number(1, kind) + blob(2, dims)))


def node(operation, inputs, outputs, domain=""):
    return (
        b"".join(blob(1, i) for i in inputs)
        + b"".join(blob(2, o) for o in outputs)
        + blob(4, operation)
        + blob(7, domain)
    )


def external_tensor(name, shape, location, length):
    """A float tensor whose bytes lie in another file."""
    entries = b"".join(
        blob(13, blob(1, key) + blob(2, value)) for key, value in (("location", location), ("length", str(length)))
    )
    return b"".join(number(1, d) for d in shape) + number(2, FLOAT) + blob(8, name) + entries + number(14, 1)


def float_tensor(name, values):
    return number(1, len(values)) + number(2, FLOAT) + blob(8, name) + blob(9, struct.pack(f"<{len(values)}f", *values))


def model(nodes, inputs, outputs, initializers=(), opset=17, domains=(), ir_version=8):
    graph = (
        b"".join(blob(1, n) for n in nodes)
        + blob(2, "graph")
        + b"".join(blob(5, t) for t in initializers)
        + b"".join(blob(11, v) for v in inputs)
        + b"".join(blob(12, v) for v in outputs)
    )
    sets = blob(8, number(2, opset)) + b"".join(blob(8, blob(1, d) + number(2, 1)) for d in domains)
    return number(1, ir_version) + blob(7, graph) + sets


def doubling(kind=FLOAT, shape=(1, 4)):
    """y = x + x"""
    return model([node("Add", ["x", "x"], ["y"])], [value_info("x", kind, shape)], [value_info("y", kind, shape)])
