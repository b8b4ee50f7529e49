// act: silu(gate)*up, silu(x) = x/(1+exp(-x)) (internal/ref's swiglu), where the
// products have not done it themselves.
//
// In: gate and up (n, ld) f32, of which the first dim count. Out: (n, ld), which
// may be gate. The limit is bandwidth: 8 bytes in, 4 out a value.

struct ActArgs {
	ulong gate, up, out;
	int dim, ld;
};

[[max_total_threads_per_threadgroup(256)]] kernel void act(constant ActArgs &a [[buffer(0)]], device uchar *scratch [[buffer(4)]], uint2 i [[thread_position_in_grid]]) {
	int k = (int)i.x;
	if (k >= a.dim)
		return;
	ulong where = (ulong)i.y * a.ld + k;
	float g = at<float>(scratch, a.gate)[where], u = at<float>(scratch, a.up)[where];
	at<float>(scratch, a.out)[where] = g / (1 + exp(-g)) * u;
}
