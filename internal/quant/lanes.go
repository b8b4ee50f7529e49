package quant

import "encoding/binary"

// Eight weights are unpacked at a time: a uint64 is eight lanes of a byte, the
// first weight in the lowest. A lane that stays within its byte never disturbs
// the next, so that plain 64-bit arithmetic does the work of eight.

// ones is 1 in every lane; k*ones is k in every lane.
const ones = 0x0101010101010101

// nibbles masks the low four bits of every lane.
const nibbles = 0x0f * ones

func load(b []byte) uint64     { return binary.LittleEndian.Uint64(b) }
func store(q []byte, x uint64) { binary.LittleEndian.PutUint64(q, x) }
func half(b []byte) float32    { return F16ToF32(binary.LittleEndian.Uint16(b)) }

// minus subtracts k from every lane, for lanes and k of 0 to 127; the lanes of
// the result are int8.
func minus(x, k uint64) uint64 { return ((x | 0x80*ones) - k*ones) ^ 0x80*ones }

// spread1 puts the eight bits of x into eight lanes.
func spread1(x byte) uint64 {
	// lane i keeps bit i of its copy of x; adding 127 carries any bit to the top
	return (uint64(x)*ones&0x8040201008040201 + 0x7f*ones) >> 7 & ones
}

// spread2 puts the eight 2-bit fields of 16 bits into eight lanes.
func spread2(x uint64) uint64 {
	x = (x | x<<24) & 0x000000ff000000ff
	x = (x | x<<12) & 0x000f000f000f000f
	return (x | x<<6) & 0x0303030303030303
}

// spread3 puts the eight 3-bit fields of 24 bits into eight lanes.
func spread3(x uint64) uint64 {
	x = (x | x<<20) & 0x00000fff00000fff
	x = (x | x<<10) & 0x003f003f003f003f
	return (x | x<<5) & 0x0707070707070707
}

// negate changes the sign of the lanes of x, each 1 to 127, whose bit in signs is set.
func negate(x uint64, signs byte) uint64 {
	s := spread1(signs)
	return (x ^ s*0xff) + s // -x = ^x + 1, which carries only for x = 0
}
