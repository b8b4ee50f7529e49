package cuda

import "drover/backend"

// Windows has no device nodes, and its driver comes as one.
func kernelSide(string) kernelModule { return kernelModule{} }

func (k kernelModule) refuses(*backend.Unusable) bool { return false }
