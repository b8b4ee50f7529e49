// The part of Metal's standard library that is known here. MSL of this device is
// read as C++ for OpenCL: see types.h.
#pragma once
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Weverything"
#include "atomic.h"
#include "entry.h"
#include "math.h"
#include "matrix.h"
#include "simd.h"
#include "types.h"
#pragma clang diagnostic pop
