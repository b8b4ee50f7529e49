// ops.cu: the module of the kernels that touch neither weights nor cache.
#include "norm.cu"
#include "act.cu"
#include "combine.cu"
#include "mixture.cu"
#include "top.cu"
#include "measure.cu"
