// ops.cu: the module of the kernels that touch neither weights nor cache.
#include "norm.cu"
#include "act.cu"
#include "combine.cu"
