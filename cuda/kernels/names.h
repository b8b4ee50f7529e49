// names.h: a kernel is named op_format, of -DFORMAT=Q4_0: matvec_q4_0.
#pragma once

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

#define JOIN(a, b) a##b
#define JOIN3(a, b, c) a##b##c
#define NAME_OF(format) JOIN(NAME_, format)
#define WEIGHT_KERNEL_NAME(op, name) JOIN3(op, _, name)
#define WEIGHT_KERNEL(op) KERNEL WEIGHT_KERNEL_NAME(op, NAME_OF(FORMAT))
#define MATMUL_NAME(name, columns) matmul_##name##_##columns
#define MATMUL_JOIN(name, columns) MATMUL_NAME(name, columns)
#define MATMUL(columns) MATMUL_JOIN(NAME_OF(FORMAT), columns)
