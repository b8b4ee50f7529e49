// The one way from Go into the driver. Every function of the driver API takes
// integers and pointers and returns an int, so on the 64-bit ABIs of Linux
// (System V amd64, AAPCS64) one call with the most arguments serves them all:
// surplus ones lie in registers and stack slots that the callee does not read.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert(sizeof(void *) == 8, "the driver exists for 64-bit systems: build with CGO_ENABLED=0");

typedef int (*call_fn)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

// The context that this thread last made current.
static __thread uint64_t current_context;

// driver_call makes context current on the calling thread where it is not, then
// calls fn with slots[0..10]. A slot whose bit of refs is set holds the index of
// a slot and is passed as its address. host, if not null, goes to slots[host_at]
// first. Slots outlive the call only as results: the driver keeps no address.
static int driver_call(uintptr_t fn, uintptr_t set_current, uint64_t context, uint64_t *slots, uint32_t refs, int host_at, const char *host) {
	if (context && context != current_context) {
		int r = ((int (*)(uint64_t))set_current)(context);
		if (r)
			return r;
		current_context = context;
	}
	if (host)
		slots[host_at] = (uint64_t)(uintptr_t)host;
	for (; refs; refs &= refs - 1) {
		int i = __builtin_ctz(refs);
		slots[i] = (uint64_t)(uintptr_t)&slots[slots[i]];
	}
	return ((call_fn)fn)(slots[0], slots[1], slots[2], slots[3], slots[4], slots[5], slots[6], slots[7], slots[8], slots[9], slots[10]);
}

// library_open gives a handle, or 0 and the loader's words in why (n bytes).
static uintptr_t library_open(const char *name, char *why, int n) {
	void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
	if (!handle) {
		const char *text = dlerror();
		snprintf(why, n, "%s", text ? text : "unknown error of the loader");
	}
	return (uintptr_t)handle;
}

static uintptr_t library_symbol(uintptr_t handle, const char *name) { return (uintptr_t)dlsym((void *)handle, name); }
