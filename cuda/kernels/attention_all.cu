// attention_all.cu: the module of all kernels that touch the cache, for keys in
// format K and values in format V: compile with -DK=F16 -DV=Q8_0, say. A
// kernel's name has both: KV(attention_, _4) is attention_f16_q8_0_4.
#define F32_name f32
#define F16_name f16
#define Q8_0_name q8_0
#define JOIN(a, k, v, b) a##k##_##v##b
#define JOIN_NAMES(a, k, v, b) JOIN(a, k, v, b)
#define NAMES(a, k, v, b) JOIN_NAMES(a, k##_name, v##_name, b)
#define EXPAND(a, k, v, b) NAMES(a, k, v, b)
#define KV(a, b) EXPAND(a, K, V, b)
#include "rope.cu"
#include "attention.cu"
#include "prompt_attention.cu"
