package quant

// The formats of 32 weights with one f16 scale d, ggml's first. In the 4- and 5-bit ones,
// byte j of qs has weight j in its low and weight j+16 in its high nibble; the
// fifth bits are a little-endian uint32, bit j for weight j.

// unpackQ4_0: d, qs[16]; w = d*(q-8).
func unpackQ4_0(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 18; src, q, scale = src[18:], q[32:], scale[2:] {
		d := half(src)
		scale[0], scale[1] = d, d
		for j := 0; j < 16; j += 8 {
			x := load(src[2+j:])
			store(q[j:], minus(x&nibbles, 8))
			store(q[16+j:], minus(x>>4&nibbles, 8))
		}
	}
}

// unpackQ4_1: d, min m, qs[16]; w = d*q + m.
func unpackQ4_1(q []byte, scale, min []float32, src []byte) {
	for ; len(src) >= 20; src, q, scale, min = src[20:], q[32:], scale[2:], min[2:] {
		d, m := half(src), half(src[2:])
		scale[0], scale[1], min[0], min[1] = d, d, m, m
		for j := 0; j < 16; j += 8 {
			x := load(src[4+j:])
			store(q[j:], x&nibbles)
			store(q[16+j:], x>>4&nibbles)
		}
	}
}

// unpackQ5_0: d, fifth bits[4], qs[16]; w = d*(q-16).
func unpackQ5_0(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 22; src, q, scale = src[22:], q[32:], scale[2:] {
		d := half(src)
		scale[0], scale[1] = d, d
		for j := 0; j < 16; j += 8 {
			x := load(src[6+j:])
			store(q[j:], minus(x&nibbles|spread1(src[2+j/8])<<4, 16))
			store(q[16+j:], minus(x>>4&nibbles|spread1(src[4+j/8])<<4, 16))
		}
	}
}

// unpackQ5_1: d, min m, fifth bits[4], qs[16]; w = d*q + m.
func unpackQ5_1(q []byte, scale, min []float32, src []byte) {
	for ; len(src) >= 24; src, q, scale, min = src[24:], q[32:], scale[2:], min[2:] {
		d, m := half(src), half(src[2:])
		scale[0], scale[1], min[0], min[1] = d, d, m, m
		for j := 0; j < 16; j += 8 {
			x := load(src[8+j:])
			store(q[j:], x&nibbles|spread1(src[4+j/8])<<4)
			store(q[16+j:], x>>4&nibbles|spread1(src[6+j/8])<<4)
		}
	}
}

// unpackQ8_0: d, int8 qs[32]; w = d*q.
func unpackQ8_0(q []byte, scale []float32, src []byte) {
	for ; len(src) >= 34; src, q, scale = src[34:], q[32:], scale[2:] {
		d := half(src)
		scale[0], scale[1] = d, d
		copy(q[:32], src[2:34])
	}
}
