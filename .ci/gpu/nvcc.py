#!/usr/bin/env python3
"""Times the hot kernels one by one on this card, as shipped (clang's PTX) and as
nvcc compiles the same source: registers, local memory, microseconds, ratio.

  nvcc.py --kernels DIR [--rows 14336 --cols 4096] [--formats "Q4_0 Q8_0 ..."]

DIR has the sources and ptx/*.TIER.ptx.gz. Without nvcc only what ships
is timed. A matrix is read from many copies in turn, so that none stays in L2.
"""
import argparse, ctypes as C, gzip, os, shutil, subprocess, sys, tempfile

ap = argparse.ArgumentParser()
ap.add_argument("--kernels", required=True)
ap.add_argument("--rows", type=int, default=14336)
ap.add_argument("--cols", type=int, default=4096)
ap.add_argument("--formats", default="Q4_0 Q4_K Q6_K Q8_0 F16")
ap.add_argument("--spread", type=float, default=1e9, help="bytes of weights to go through")
ap.add_argument("--launches", type=int, default=60)
a = ap.parse_args()

# columns and bytes of a chunk of 16 rows
CHUNKS = {"Q4_0": (128, 1152), "Q8_0": (128, 2176), "Q4_K": (256, 2304), "Q6_K": (256, 3360), "Q5_K": (256, 2816), "F16": (64, 2048)}


class Matrix(C.Structure):
    _fields_ = [("w", C.c_uint64), ("y", C.c_uint64), ("bias", C.c_uint64), ("rows", C.c_int32), ("ldy", C.c_int32), ("stride", C.c_uint64)]


class Product(C.Structure):
    _fields_ = [("m", Matrix * 3), ("matrices", C.c_int32), ("cols", C.c_int32), ("n", C.c_int32), ("add", C.c_int32),
                ("kpad", C.c_int32), ("ldx", C.c_int32), ("x", C.c_uint64), ("half", C.c_uint64), ("scale", C.c_uint64), ("sums", C.c_uint64), ("experts", C.c_uint64),
                ("share", C.c_int32), ("total", C.c_int32)]


cuda = C.CDLL(os.environ.get("DROVER_CUDA_LIBRARY", "libcuda.so.1"))


def call(name, *args):
    status = getattr(cuda, name)(*args)
    if status:
        sys.exit(f"{name}: CUDA error {status}")


device, context = C.c_int(), C.c_void_p()
call("cuInit", 0)
call("cuDeviceGet", C.byref(device), 0)
call("cuDevicePrimaryCtxRetain", C.byref(context), device)
call("cuCtxSetCurrent", context)


def attribute(number):
    value = C.c_int()
    call("cuDeviceGetAttribute", C.byref(value), number, device)
    return value.value


capability = attribute(75) * 10 + attribute(76)
tier = next(t for t in (90, 80, 75) if t <= capability)
# where products for prompts come from: module's tier, source, stages of activations, and whether weights go through shared memory
prompts = ("90a", "matmul_warpgroup.cu", 5, True) if capability == 90 else (tier, "matmul.cu", 4 if tier >= 80 else 2, False)


def alloc(n):
    p = C.c_uint64()
    call("cuMemAlloc_v2", C.byref(p), C.c_size_t(n))
    call("cuMemsetD8_v2", p, C.c_ubyte(0), C.c_size_t(n))
    return p.value


stream = C.c_void_p()
call("cuStreamCreate", C.byref(stream), 1)


def load(image, kernel):
    module, function = C.c_void_p(), C.c_void_p()
    call("cuModuleLoadData", C.byref(module), image)
    call("cuModuleGetFunction", C.byref(function), module, kernel.encode())
    return function


def of(function, number):
    value = C.c_int()
    call("cuFuncGetAttribute", C.byref(value), number, function)
    return value.value


def time(function, grid, block, shared, products):
    if shared > 48 << 10:
        call("cuFuncSetAttribute", function, 8, shared)
    start, end, took = C.c_void_p(), C.c_void_p(), C.c_float()
    call("cuEventCreate", C.byref(start), 0)
    call("cuEventCreate", C.byref(end), 0)
    best = 1e30
    for attempt in range(4):  # the first one warms up
        call("cuEventRecord", start, stream)
        for i in range(a.launches):
            p = products[i % len(products)]
            args = (C.c_void_p * 1)(C.cast(C.pointer(p), C.c_void_p))
            call("cuLaunchKernel", function, grid[0], grid[1], 1, block, 1, 1, shared, stream, args, None)
        call("cuEventRecord", end, stream)
        call("cuEventSynchronize", end)
        call("cuEventElapsedTime", C.byref(took), start, end)
        if attempt:
            best = min(best, took.value * 1e3 / a.launches)
    return best


def nvcc(name, source, arch, scratch):
    out = os.path.join(scratch, name + source + ".cubin")
    r = subprocess.run(["nvcc", "-cubin", f"-arch=sm_{arch}", "-std=c++17", "-O3", "-x", "cu", "-I", a.kernels, "-DFORMAT=" + name,
                        os.path.join(a.kernels, source), "-o", out], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if r.returncode:
        print(f"nvcc does not compile {source} for {name}: " + r.stdout.decode(errors="replace")[:400], file=sys.stderr)
        return None
    return open(out, "rb").read()


rows, cols = a.rows, a.cols
kpad = (cols + 255) // 256 * 256
many = 512
y, activations, scales, floats = alloc(many * rows * 4), alloc(many * kpad * 2), alloc(many * kpad // 4), alloc(many * kpad * 4)
print(f"{rows} x {cols}; compute capability {capability / 10}, tier sm_{tier}")
print(f"{'kernel':<18}{'n':>5}{'regs':>12}{'local':>12}{'us':>18}{'GB/s, TFLOP/s':>18}{'clang/nvcc':>12}")
scratch = tempfile.mkdtemp()
for name in a.formats.split():
    columns, size = CHUNKS[name]
    chunks = (cols + columns - 1) // columns
    bytes_ = (rows + 15) // 16 * chunks * size
    copies = [alloc(bytes_) for _ in range(max(1, int(a.spread / bytes_)))]
    low = name.lower()
    images = {}
    for module, arch, source in ("weights", tier, "weights.cu"), ("matmul", *prompts[:2]):
        images["clang", module] = gzip.open(os.path.join(a.kernels, "ptx", f"{module}_{low}.sm_{arch}.ptx.gz")).read() + b"\0"
        if shutil.which("nvcc") and tier == 90:
            images["nvcc", module] = nvcc(name, source, "90a" if arch == "90a" else capability, scratch)
    ring = 16 * 256 // columns * size if prompts[3] else 0
    warps = 1
    while warps < 8 and warps < chunks:
        warps *= 2
    cases = [(f"matvec_{low}", 1, (rows + 15) // 16, 1, 32 * warps, 0), (f"matvec2_{low}", 8, (rows + 31) // 32, 1, 32 * warps, 0),
             (f"matmul_{low}_128", many, (rows + 255) // 256, many // 128, 256, 128 * (128 * prompts[2] + 12) + 24 + ring)]
    for kernel, n, x, down, block, shared in cases:
        products = []
        for w in copies:
            p = Product(matrices=1, cols=cols, n=n, add=0, kpad=kpad, ldx=kpad, x=floats, half=activations, scale=scales, sums=scales)
            p.m[0] = Matrix(w, y, 0, rows, rows, bytes_)
            products.append(p)
        found = {}
        for (who, _), image in images.items():
            if image and (kernel.encode() in image):
                f = load(image, kernel)
                found[who] = (of(f, 4), of(f, 3), time(f, (x, down), block, shared, products))
        if "clang" not in found:
            continue
        both = [found[who] for who in ("clang", "nvcc") if who in found]
        rate = bytes_ / found["clang"][2] / 1e3 if n <= 8 else 2 * rows * cols * n / found["clang"][2] / 1e6
        ratio = f"{found['clang'][2] / found['nvcc'][2]:.3f}" if "nvcc" in found else "-"
        print(f"{kernel:<18}{n:>5}{' / '.join(str(b[0]) for b in both):>12}{' / '.join(str(b[1]) for b in both):>12}"
              f"{' / '.join(f'{b[2]:.1f}' for b in both):>18}{rate:>18.1f}{ratio:>12}", flush=True)
    for w in copies:
        call("cuMemFree_v2", C.c_uint64(w))
shutil.rmtree(scratch)
