#!/usr/bin/env python3
"""Times the products for prompts on this card, those of sm_90 (mma.sync) and those
of sm_90a (wgmma), and compares their results, to the bit between kernels of a tier.

  matmul.py --ptx DIR [--formats "Q4_0 F16 ..."] [--shapes "28672x4096 ..."] [--columns "512 1024 2048"]

DIR has matmul_*.TIER.ptx.gz. Nothing else is read. Weights are random bytes with
small scales. A matrix is read from several copies in turn, so that none stays in L2.
"""
import argparse, ctypes as C, gzip, os, random, struct, sys

ap = argparse.ArgumentParser()
ap.add_argument("--ptx", default=os.path.dirname(os.path.abspath(__file__)))
ap.add_argument("--formats", default="Q4_0 F16 Q8_0 Q4_K Q6_K")
ap.add_argument("--shapes", default="28672x4096 4096x14336 4096x4096 6144x4096")
ap.add_argument("--columns", default="512 1024 2048")
ap.add_argument("--launches", type=int, default=10)
ap.add_argument("--tiers", default="sm_90 sm_90a")
ap.add_argument("--add", type=int, default=0, help="1: results are added to what is there")
ap.add_argument("--all", action="store_true", help="every kernel and number of warps, not the largest alone")
a = ap.parse_args()

# columns and bytes of a chunk of 16 rows; where scales of f16 lie in it, and how many
FORMATS = {"Q4_0": (128, 1152, 1024, 64), "Q8_0": (128, 2176, 2048, 64), "F16": (64, 2048, 0, 1024), "BF16": (64, 2048, 0, 1024),
           "Q4_K": (256, 2304, 2048, 128), "Q6_K": (256, 3360, 3328, 16), "Q5_K": (256, 2816, 2560, 128), "Q4_1": (128, 1280, 1024, 128),
           "IQ4_NL": (128, 1152, 1024, 64), "Q5_1": (256, 3072, 2560, 256), "Q3_K": (256, 1792, 1536, 128), "Q2_K": (256, 1344, 1280, 32)}
# columns, tiles of 16 rows a warp, warps, name of the kernel, stages of activations
WIDTHS = {"sm_90": [(128, 2, 8, 128, 4), (128, 2, 4, 128, 4), (64, 2, 4, 64, 4), (32, 1, 4, 32, 4), (32, 1, 2, 32, 4)],
          "sm_90a": [(128, 2, 8, "128", 5), (256, 1, 8, "256", 5), (128, 1, 8, "128_half", 5), (64, 1, 8, "64", 5), (64, 1, 4, "64", 5), (32, 1, 4, "32", 5)]}



class Matrix(C.Structure):
    _fields_ = [("w", C.c_uint64), ("y", C.c_uint64), ("bias", C.c_uint64), ("rows", C.c_int32), ("ldy", C.c_int32), ("stride", C.c_uint64)]


class Product(C.Structure):
    _fields_ = [("m", Matrix * 3), ("matrices", C.c_int32), ("cols", C.c_int32), ("n", C.c_int32), ("add", C.c_int32),
                ("kpad", C.c_int32), ("ldx", C.c_int32), ("x", C.c_uint64), ("half", C.c_uint64), ("scale", C.c_uint64), ("experts", C.c_uint64),
                ("share", C.c_int32), ("total", C.c_int32)]


cuda = C.CDLL(os.environ.get("DROVER_CUDA_LIBRARY", "libcuda.so.1"))


def call(name, *args):
    status = getattr(cuda, name)(*args)
    if status:
        sys.exit(f"{name}: CUDA error {status}")


device, context, stream = C.c_int(), C.c_void_p(), C.c_void_p()
call("cuInit", 0)
call("cuDeviceGet", C.byref(device), 0)
call("cuDevicePrimaryCtxRetain", C.byref(context), device)
call("cuCtxSetCurrent", context)
call("cuStreamCreate", C.byref(stream), 1)
start, end, took = C.c_void_p(), C.c_void_p(), C.c_float()
call("cuEventCreate", C.byref(start), 0)
call("cuEventCreate", C.byref(end), 0)


def alloc(n):
    p = C.c_uint64()
    call("cuMemAlloc_v2", C.byref(p), C.c_size_t(n))
    return p.value


def upload(p, data):
    call("cuMemcpyHtoDAsync_v2", C.c_uint64(p), data, C.c_size_t(len(data)), stream)
    call("cuStreamSynchronize", stream)


def download(p, n):
    data = C.create_string_buffer(n)
    call("cuMemcpyDtoHAsync_v2", data, C.c_uint64(p), C.c_size_t(n), stream)
    call("cuStreamSynchronize", stream)
    return data.raw


def load(path, kernels):
    module, found = C.c_void_p(), {}
    call("cuModuleLoadData", C.byref(module), gzip.open(path).read() + b"\0")
    for kernel in kernels:
        found[kernel] = C.c_void_p()
        call("cuModuleGetFunction", C.byref(found[kernel]), module, kernel.encode())
    return found


def attribute(function, number):
    value = C.c_int()
    call("cuFuncGetAttribute", C.byref(value), number, function)
    return value.value


def shared_of(tier, width, columns, size):
    n, tiles, warps, _, stages = width
    return n * (128 * stages + 12) + 24 + (tiles * warps * 256 // columns * size if tier != "sm_90" else 0)


def launch(function, grid, block, shared, product):
    args = (C.c_void_p * 1)(C.cast(C.pointer(product), C.c_void_p))
    call("cuLaunchKernel", function, grid[0], grid[1], 1, block, 1, 1, shared, stream, args, None)


def time(function, grid, block, shared, products):
    best = 1e30
    for attempt in range(4):  # the first one warms up
        call("cuEventRecord", start, stream)
        for i in range(a.launches):
            launch(function, grid, block, shared, products[i % len(products)])
        call("cuEventRecord", end, stream)
        call("cuEventSynchronize", end)
        call("cuEventElapsedTime", C.byref(took), start, end)
        if attempt:
            best = min(best, took.value * 1e3 / a.launches)
    return best


rng = random.Random(1)


def weights(name, n):
    """n bytes of chunks: random, with scales that are small f16 numbers."""
    columns, size, at, count = FORMATS[name]
    chunks = bytearray()
    for _ in range(64):
        chunk = bytearray(rng.randbytes(size))
        if name == "BF16":
            chunk[:] = b"".join(struct.pack("<H", rng.choice((0, 0x8000)) | rng.randrange(0x3b80, 0x3c80)) for _ in range(count))
        else:
            for i in range(count):
                half = struct.pack("<e", rng.uniform(-0.02, 0.02))
                if name in ("Q4_K", "Q5_K"):  # d, dmin, then 12 bytes of small scales
                    if i % 8 < 2:
                        chunk[at + 2 * i:at + 2 * i + 2] = half
                elif name == "Q3_K":
                    if i % 8 == 6:
                        chunk[at + 2 * i:at + 2 * i + 2] = half
                else:
                    chunk[at + 2 * i:at + 2 * i + 2] = half
        chunks += chunk
    whole = n // len(chunks) + 1
    return (bytes(chunks) * whole)[:n]


def floats(data):
    return struct.unpack(f"<{len(data) // 4}f", data)


shapes = [tuple(int(v) for v in s.split("x")) for s in a.shapes.split()]
numbers = [int(n) for n in a.columns.split()]
many, deep, wide = max(numbers), max(s[1] for s in shapes), max(s[0] for s in shapes)
kpad = (deep + 255) // 256 * 256
y, activations, scales = alloc(many * wide * 4), alloc(many * kpad * 2), alloc(many * 4)
row = b"".join(struct.pack("<e", rng.uniform(-1, 1)) for _ in range(1 << 16))
upload(activations, (row * (many * kpad * 2 // len(row) + 1))[:many * kpad * 2])
upload(scales, struct.pack("<f", 1) * many)
tiers = a.tiers.split()
wrong = 0
print(f"{'format':<8}{'shape':>13}{'n':>6}  {'tier':<8}{'columns x rows':<15}{'threads':>8}{'blocks':>8}{'regs':>6}{'KiB':>5}{'us':>10}{'TFLOP/s':>9}{'x first':>9}{'differs':>10}")
for name in a.formats.split():
    columns, size = FORMATS[name][:2]
    low = name.lower()
    functions = {}
    for t in tiers:
        path = os.path.join(a.ptx, f"matmul_{low}.{t}.ptx.gz")
        text = gzip.open(path).read().decode()
        widths = [w for w in WIDTHS[t] if f" matmul_{low}_{w[3]}(" in text]
        found = load(path, sorted({f"matmul_{low}_{w[3]}" for w in widths}))
        for w in widths:
            functions[t, w] = found[f"matmul_{low}_{w[3]}"]
            most = max(shared_of(t, v, columns, size) for v in widths if v[3] == w[3])
            if most <= 227 << 10:
                call("cuFuncSetAttribute", functions[t, w], 8, most)
            else:
                del functions[t, w]
    for rows, cols in shapes:
        bytes_ = (rows + 15) // 16 * ((cols + columns - 1) // columns) * size
        copies = [alloc(bytes_) for _ in range(max(2, min(8, int(3e8 / bytes_))))]
        data = weights(name, bytes_)
        for w in copies:
            upload(w, data)
        products = []
        for at in copies:
            p = Product(matrices=1, cols=cols, add=a.add, kpad=kpad, ldx=kpad, x=0, half=activations, scale=0 if name == "BF16" else scales)
            p.m[0] = Matrix(at, y, 0, rows, rows, bytes_)
            products.append(p)
        for n in numbers:
            first, before = {}, None
            for (t, w), function in functions.items():
                # those for few columns only where all are wanted
                if not a.all and w[0] < 128 and n > 128:
                    continue
                for p in products:
                    p.n = n
                per = 16 * w[1] * w[2]
                grid, shared = ((rows + per - 1) // per, (n + w[0] - 1) // w[0]), shared_of(t, w, columns, size)
                call("cuMemsetD8Async", C.c_uint64(y), C.c_ubyte(0 if a.add else 255), C.c_size_t(n * rows * 4), stream)
                launch(function, grid, 32 * w[2], shared, products[0])
                call("cuStreamSynchronize", stream)
                result = download(y, n * rows * 4)
                us = time(function, grid, 32 * w[2], shared, products)
                kind = t
                differs = ""
                if kind not in first:
                    first[kind] = result
                    x, z = (floats(v[:4 * 65536]) + floats(v[-4 * 65536:]) for v in (next(iter(first.values())), result))
                    error = sum((i - j) ** 2 for i, j in zip(x, z)) / max(sum(i * i for i in x), 1e-30)
                    differs, wrong = f"{error:.1e}", wrong + (not error < 1e-9)
                elif result != first[kind]:
                    differs, wrong = "BITS", wrong + 1
                before = before or us
                print(f"{name:<8}{f'{rows}x{cols}':>13}{n:>6}  {t:<8}{f'{w[0]} x {per}':<15}{32 * w[2]:>8}{grid[0] * grid[1]:>8}{attribute(function, 4):>6}{shared / 1024:>5.0f}"
                      f"{us:>10.1f}{2 * rows * cols * n / us / 1e6:>9.1f}{before / us:>9.3f}{differs:>10}", flush=True)
        for w in copies:
            call("cuMemFree_v2", C.c_uint64(w))
print("wrong:", wrong)
sys.exit(wrong != 0)
