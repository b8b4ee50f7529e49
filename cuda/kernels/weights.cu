// weights.cu: the module of one weight format, -DFORMAT=Q4_0: everything that
// touches weights in it. Kernels are named op_format: matvec_q4_0.
#include "weights.h"

#define NAME_F32 f32
#define NAME_F16 f16
#define NAME_BF16 bf16
#define NAME_Q8_0 q8_0
#define NAME_Q4_0 q4_0
#define NAME_Q4_1 q4_1
#define NAME_Q5_0 q5_0
#define NAME_Q5_1 q5_1
#define NAME_Q2_K q2_k
#define NAME_Q3_K q3_k
#define NAME_Q4_K q4_k
#define NAME_Q5_K q5_k
#define NAME_Q6_K q6_k
#define NAME_IQ4_NL iq4_nl
#define NAME_IQ4_XS iq4_xs
#define NAME_MXFP4 mxfp4
#define NAME_I16 i16
// Those of which two tiles do not fit in a thread's registers,
#define ONE_TILE_F32 1
#define ONE_TILE_I16 1
#define ONE_TILE_Q4_K 1
#define ONE_TILE_Q6_K 1
#define ONE_TILE_Q5_1 1
#define ONE_TILE_Q2_K 1
#define ONE_TILE_Q5_K 1
#define ONE_TILE_Q3_K 1
#define ONE_TILE_Q5_0 1
#define ONE_TILE_IQ4_XS 1
#define ONE_TILE_MXFP4 1
// and those of which they do not in the loop of a gate, which comes back to them.
#define GATE_TILES_BF16 1

#define JOIN(a, b) a##b
#define JOIN3(a, b, c) a##b##c
#define NAME_OF(format) JOIN(NAME_, format)
#define ONE_TILE_OF(format) JOIN(ONE_TILE_, format)
#define GATE_TILES_OF(format) JOIN(GATE_TILES_, format)
#define WEIGHT_KERNEL_NAME(op, name) JOIN3(op, _, name)
#define WEIGHT_KERNEL(op) KERNEL WEIGHT_KERNEL_NAME(op, NAME_OF(FORMAT))

#include "pack.cu"
#include "embed.cu"
#include "matvec.cu"
#include "matmul.cu"
