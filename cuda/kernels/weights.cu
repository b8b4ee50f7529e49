// weights.cu: the module of one weight format, -DFORMAT=Q4_0: everything that
// touches weights in it but products for prompts (matmul.cu, matmul_warpgroup.cu).
#include "names.h"
#include "weights.h"

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

#define ONE_TILE_OF(format) JOIN(ONE_TILE_, format)
#define GATE_TILES_OF(format) JOIN(GATE_TILES_, format)

#include "pack.cu"
#include "embed.cu"
#include "matvec.cu"
