package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"sort"
)

// Random fills dst, whole blocks of t, with pseudo-random weights of mean about
// 0 and standard deviation sigma. They are the same on every platform for the
// same arguments, and always finite: sigma is taken as 0 where it is not
// positive, and as what the format can hold beyond that (NVFP4: 0.0004 to 1300).
//
// Blocks are random bits but for their scale, which is one of two neighbouring
// values of the format so that sigma is met on average, with a random sign; in
// formats with mins the scale is positive and the min centres the weights.
// F32, F16 and BF16 weights are a sum of two uniform ones (triangular).
func Random(t Type, dst []byte, seed uint64, sigma float32) {
	weights(t, len(dst))
	r := newStream(seed)
	s := float64(sigma)
	if !(s > 0) {
		s = 0
	}
	switch t {
	case F32, F16, BF16:
		r.floats(t, dst, s)
		return
	}
	d := scaleFor(t, s)
	size := (16 << 10) / t.BlockBytes() * t.BlockBytes() // stays in the cache between the two steps
	for len(dst) > 0 {
		b := dst[:min(size, len(dst))]
		r.bits(b)
		setScales(t, b, d)
		dst = dst[len(b):]
	}
}

// stream is Wang Yi's wyrand: a counter, hashed by a 128-bit product.
type stream struct{ state uint64 }

// newStream hashes the seed, so that near seeds give streams that share nothing.
func newStream(seed uint64) *stream {
	s := stream{seed}
	return &stream{s.next()}
}

func (s *stream) next() uint64 {
	s.state += 0xa0761d6478bd642f
	hi, lo := bits.Mul64(s.state, s.state^0xe7037ed1a0b428db)
	return hi ^ lo
}

// bits fills dst with random bits.
func (s *stream) bits(dst []byte) {
	r := *s
	for ; len(dst) >= 8; dst = dst[8:] {
		binary.LittleEndian.PutUint64(dst, r.next())
	}
	if len(dst) > 0 {
		var last [8]byte
		binary.LittleEndian.PutUint64(last[:], r.next())
		copy(dst, last[:])
	}
	*s = r
}

// floats fills dst with numbers of standard deviation sigma: sums of two int16,
// whose variance is 2^32/6, times a constant.
func (s *stream) floats(t Type, dst []byte, sigma float64) {
	limit := 1e38 // the largest weight is 2^16 * sqrt(6/2^32) = 2.45 sigma
	if t == F16 {
		limit = 26000
	}
	unit := float32(min(sigma, limit) * math.Sqrt(6.0/(1<<32)))
	r, size := *s, t.BlockBytes()
	var w [chunk]float32
	for len(dst) > 0 {
		n := min(chunk, len(dst)/size)
		for i := 0; i < n; i += 2 {
			x := r.next()
			w[i] = unit * float32(int32(int16(x))+int32(int16(x>>16)))
			w[i+1] = unit * float32(int32(int16(x>>32))+int32(int16(x>>48)))
		}
		packFloats(t, dst, w[:n])
		dst = dst[n*size:]
	}
	*s = r
}

// level is a scale's two neighbouring codes: hi is taken cut times in 256.
type level struct{ lo, hi, cut uint16 }

// pick chooses by a random byte.
func (l level) pick(r byte) uint16 {
	if uint16(r) < l.cut {
		return l.hi
	}
	return l.lo
}

// scaleFor is the level whose weights have standard deviation sigma.
func scaleFor(t Type, sigma float64) level {
	want := sigma / math.Sqrt(meanSquare(t))
	value, most := f16Value, 0x7bff // the largest finite f16
	switch t {
	case MXFP4:
		value, most = e8m0Value, 252 // 12 * 2^(252-128) is still finite
	case NVFP4:
		value, most = e4m3Value, 0x7e
	default:
		want = min(want, 65504/(1+centre(t))) // the min is finite, too
	}
	return neighbours(want, most, value)
}

func f16Value(code int) float64  { return float64(F16ToF32(uint16(code))) }
func e8m0Value(code int) float64 { return float64(e8m0Half(byte(code))) }
func e4m3Value(code int) float64 { return float64(e4m3Half(byte(code))) }

// neighbours finds the codes around want, of those up to most, whose values
// ascend, and mixes them so that the mean square is want's.
func neighbours(want float64, most int, value func(code int) float64) level {
	hi := sort.Search(most, func(code int) bool { return value(code) >= want })
	lo := max(hi-1, 0)
	a, b := value(lo), value(hi)
	cut := 0.0
	if b > a {
		cut = math.Round(256 * (want - a) * (want + a) / ((b - a) * (b + a)))
	}
	return level{uint16(lo), uint16(hi), uint16(min(max(cut, 0), 256))}
}

// meanSquare is that of the weights of blocks of random bits with scale 1 and,
// in formats with mins, weights that the min centres.
func meanSquare(t Type) float64 {
	const (
		int2, int3, int4, int5 = 1.5, 5.5, 21.5, 85.5      // of signed integers, uniform: (4^bits + 2) / 12
		int6, int8             = 341.5, 5461.5             //
		centred2               = 1.25                      // of integers less their mean: (4^bits - 1) / 12
		centred4, centred5     = 21.25, 85.25              //
		nibble, six            = 77.5, 1333.5              // of unsigned integers: (2^bits - 1) (2^(bits+1) - 1) / 6
		halves                 = 85.25                     // of s+1/2, s of 4 bits
		odd4, odd3             = 341.0, 85.0               // of 2s+1, s of 4 and 3 bits
		iq4, e2m1              = 4548.0, 34.25             // of the tables' values
		iq1                    = 9735.0/16384 + 1.0/64     // of the grid's values ± 1/8
		iq2xxs, iq2xs, iq2s    = 534.430, 586.476, 596.842 // of the grids' values
		iq3xxs, iq3s           = 951.641, 57.672
	)
	switch t {
	case Q4_0:
		return int4
	case Q4_1:
		return centred4
	case Q5_0:
		return int5
	case Q5_1:
		return centred5
	case Q8_0:
		return int8
	case Q2_K:
		return nibble * centred2
	case Q3_K:
		return int6 * int3
	case Q4_K:
		return six * centred4
	case Q5_K:
		return six * centred5
	case Q6_K:
		return int8 * int6
	case IQ2_XXS:
		return halves / 16 * iq2xxs
	case IQ2_XS:
		return halves / 16 * iq2xs
	case IQ2_S:
		return halves / 16 * iq2s
	case IQ3_XXS:
		return halves / 4 * iq3xxs
	case IQ3_S:
		return odd4 * iq3s
	case IQ1_S, IQ1_M:
		return odd3 * iq1
	case IQ4_NL:
		return iq4
	case IQ4_XS:
		return int6 * iq4
	case TQ1_0:
		return 0.668 // digits of a uniform byte
	case TQ2_0, Q2_0:
		return int2
	case MXFP4, NVFP4:
		return e2m1
	case Q1_0:
		return 1
	}
	panic(fmt.Sprintf("BUG: no random blocks of %v", t))
}

// centre is the mean of the format's unsigned integers: the min over the scale.
func centre(t Type) float64 {
	switch t {
	case Q4_1, Q4_K:
		return 7.5
	case Q5_1, Q5_K:
		return 15.5
	case Q2_K:
		return 1.5
	}
	return 0
}

// setScales puts scales into blocks of random bits.
func setScales(t Type, b []byte, d level) {
	size := t.BlockBytes()
	if HasMin(t) {
		setMins(t, b, d)
		return
	}
	switch t {
	case MXFP4:
		for ; len(b) > 0; b = b[size:] {
			b[0] = byte(d.pick(b[0]))
		}
	case NVFP4:
		for ; len(b) > 0; b = b[size:] {
			for g := range b[:4] {
				b[g] = byte(d.pick(b[g]))
			}
		}
	case IQ1_M: // the scale lies in the top nibbles of four uint16
		for ; len(b) > 0; b = b[size:] {
			x := load(b[48:])
			h := uint64(d.pick(byte(x>>12&15|x>>24&0xf0))) | x>>48&0x8000
			const nibbles = 0xf000f000f000f000
			x = x&^nibbles | h<<12&0xf000 | h<<24&(0xf000<<16) | h<<36&(0xf000<<32) | h<<48&(0xf000<<48)
			store(b[48:], x)
		}
	default:
		for at := scaleOffset(t); len(b) > 0; b = b[size:] {
			h := binary.LittleEndian.Uint16(b[at:])
			binary.LittleEndian.PutUint16(b[at:], h&0x8000|d.pick(byte(h)))
		}
	}
}

// scaleOffset is where the f16 scale lies in a block.
func scaleOffset(t Type) int {
	switch t {
	case Q2_K:
		return 80
	case Q3_K:
		return 108
	case Q6_K:
		return 208
	case TQ1_0:
		return 52
	case TQ2_0:
		return 64
	}
	return 0
}

// setMins is setScales for formats with mins.
func setMins(t Type, b []byte, d level) {
	lo := uint32(d.lo) | uint32(minCode(t, d.lo))<<16
	hi := uint32(d.hi) | uint32(minCode(t, d.hi))<<16
	at, size := scaleOffset(t), t.BlockBytes()
	for ; len(b) > 0; b = b[size:] {
		x := lo
		if uint16(b[at]) < d.cut {
			x = hi
		}
		binary.LittleEndian.PutUint32(b[at:], x)
		switch t {
		case Q2_K: // each group's min is its scale
			for i := 0; i < 16; i += 8 {
				store(b[i:], load(b[i:])&nibbles*0x11)
			}
		case Q4_K, Q5_K:
			copy(b[8:12], b[4:8])
			low := binary.LittleEndian.Uint32(b[12:]) & 0x0f0f0f0f
			binary.LittleEndian.PutUint32(b[12:], low*0x11)
		}
	}
}

// minCode is the f16 min that centres weights of scale d. Q4_1 and Q5_1 add
// their min, the K-quants subtract theirs.
func minCode(t Type, d uint16) uint16 {
	m := F32ToF16(float32(centre(t)) * F16ToF32(d))
	if t == Q4_1 || t == Q5_1 {
		m |= 0x8000
	}
	return m
}
