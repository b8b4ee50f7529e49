package metal

// libraries are those of the Objective-C runtime and of Metal.
func libraries() ([2]string, error) {
	return [2]string{"/usr/lib/libobjc.A.dylib", "/System/Library/Frameworks/Metal.framework/Metal"}, nil
}

// simulated: this build runs on the software Metal device.
const simulated = false
