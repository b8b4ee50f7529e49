package gguf

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"strconv"
	"strings"
)

// Value is a metadata value, kept as it lies in the file.
type Value struct {
	Type Type
	Elem Type // of an Array
	Len  int  // of an Array

	raw []byte // the value, or an array's elements, as the file holds them; checked
}

// Uint is an integer that is not negative.
func (v Value) Uint() (uint64, bool) {
	if v.Type == Uint64 {
		return binary.LittleEndian.Uint64(v.raw), true
	}
	n, ok := v.Int()
	return uint64(n), ok && n >= 0
}

// Int is an integer of any type that fits.
func (v Value) Int() (int64, bool) {
	switch v.Type {
	case Uint8:
		return int64(v.raw[0]), true
	case Int8:
		return int64(int8(v.raw[0])), true
	case Uint16:
		return int64(binary.LittleEndian.Uint16(v.raw)), true
	case Int16:
		return int64(int16(binary.LittleEndian.Uint16(v.raw))), true
	case Uint32:
		return int64(binary.LittleEndian.Uint32(v.raw)), true
	case Int32:
		return int64(int32(binary.LittleEndian.Uint32(v.raw))), true
	case Uint64, Int64:
		n := int64(binary.LittleEndian.Uint64(v.raw))
		return n, v.Type == Int64 || n >= 0
	}
	return 0, false
}

// Float is a float32 or float64.
func (v Value) Float() (float64, bool) {
	switch v.Type {
	case Float32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(v.raw))), true
	case Float64:
		return math.Float64frombits(binary.LittleEndian.Uint64(v.raw)), true
	}
	return 0, false
}

// Bool is a bool.
func (v Value) Bool() (value, ok bool) {
	if v.Type != Bool {
		return false, false
	}
	return v.raw[0] == 1, true
}

// Text is a string. Its bytes need not be UTF-8.
func (v Value) Text() (string, bool) {
	if v.Type != String {
		return "", false
	}
	return string(v.raw[8:]), true
}

// Items gives an array's elements in order; nothing of a scalar.
func (v Value) Items() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Type != Array {
			return
		}
		c := &cursor{data: v.raw}
		for range v.Len {
			item, err := c.value(v.Elem, 0)
			if err != nil {
				panic("BUG: an array that was checked: " + err.Error())
			}
			if !yield(item) {
				return
			}
		}
	}
}

// Texts copies an array of strings.
func (v Value) Texts() ([]string, bool) {
	if v.Type != Array || v.Elem != String {
		return nil, false
	}
	all := string(v.raw) // one copy that the strings share
	out, pos := make([]string, v.Len), 0
	for i := range out {
		n := int(binary.LittleEndian.Uint64(v.raw[pos:]))
		out[i] = all[pos+8 : pos+8+n]
		pos += 8 + n
	}
	return out, true
}

// Float32s copies an array of float32.
func (v Value) Float32s() ([]float32, bool) {
	if v.Type != Array || v.Elem != Float32 {
		return nil, false
	}
	out := make([]float32, v.Len)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(v.raw[4*i:]))
	}
	return out, true
}

// Int32s copies an array of integers of any type, where all fit.
func (v Value) Int32s() ([]int32, bool) {
	if v.Type != Array {
		return nil, false
	}
	switch v.Elem {
	case Uint8, Int8, Uint16, Int16, Uint32, Int32, Uint64, Int64:
	default:
		return nil, false
	}
	out, i := make([]int32, v.Len), 0
	for item := range v.Items() {
		n, ok := item.Int()
		if !ok || n != int64(int32(n)) {
			return nil, false
		}
		out[i] = int32(n)
		i++
	}
	return out, true
}

// String shows the value for people, long texts and arrays cut short.
func (v Value) String() string {
	const most, mostItems = 120, 8
	switch v.Type {
	case String:
		s := string(v.raw[8:min(len(v.raw), 8+most)])
		if len(v.raw) > 8+most {
			return strconv.Quote(s) + "..."
		}
		return strconv.Quote(s)
	case Array:
		var b strings.Builder
		b.WriteByte('[')
		i := 0
		for item := range v.Items() {
			if i == mostItems {
				fmt.Fprintf(&b, ", ... %d in all", v.Len)
				break
			}
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(item.String())
			i++
		}
		b.WriteByte(']')
		return b.String()
	case Bool:
		return strconv.FormatBool(v.raw[0] == 1)
	case Float32:
		f, _ := v.Float()
		return strconv.FormatFloat(f, 'g', -1, 32)
	case Float64:
		f, _ := v.Float()
		return strconv.FormatFloat(f, 'g', -1, 64)
	case Uint64:
		n, _ := v.Uint()
		return strconv.FormatUint(n, 10)
	}
	if n, ok := v.Int(); ok {
		return strconv.FormatInt(n, 10)
	}
	return v.Type.String()
}

// Of makes a Value of a Go value: integers and floats of fixed size, bool,
// string, slices of these, or [][]T-like nesting as []Value of arrays.
func Of(x any) Value {
	switch x := x.(type) {
	case uint8:
		return Value{Type: Uint8, raw: []byte{x}}
	case int8:
		return Value{Type: Int8, raw: []byte{byte(x)}}
	case bool:
		return Value{Type: Bool, raw: []byte{truth(x)}}
	case uint16:
		return scalar(Uint16, uint64(x))
	case int16:
		return scalar(Int16, uint64(x))
	case uint32:
		return scalar(Uint32, uint64(x))
	case int32:
		return scalar(Int32, uint64(x))
	case float32:
		return scalar(Float32, uint64(math.Float32bits(x)))
	case uint64:
		return scalar(Uint64, x)
	case int64:
		return scalar(Int64, uint64(x))
	case float64:
		return scalar(Float64, math.Float64bits(x))
	case string:
		return Value{Type: String, raw: append(binary.LittleEndian.AppendUint64(nil, uint64(len(x))), x...)}
	case []uint8:
		return list(Uint8, x)
	case []int8:
		return list(Int8, x)
	case []uint16:
		return list(Uint16, x)
	case []int16:
		return list(Int16, x)
	case []uint32:
		return list(Uint32, x)
	case []int32:
		return list(Int32, x)
	case []float32:
		return list(Float32, x)
	case []bool:
		return list(Bool, x)
	case []string:
		return list(String, x)
	case []uint64:
		return list(Uint64, x)
	case []int64:
		return list(Int64, x)
	case []float64:
		return list(Float64, x)
	case []Value:
		v := Value{Type: Array, Elem: Array, Len: len(x)}
		for _, item := range x {
			if item.Type != Array {
				panic(fmt.Sprintf("BUG: an array of arrays with a %v in it", item.Type))
			}
			v.raw = item.append(v.raw)
		}
		return v
	}
	panic(fmt.Sprintf("BUG: GGUF has no type for %T", x))
}

func truth(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// scalar keeps the low bytes of bits.
func scalar(t Type, bits uint64) Value {
	return Value{Type: t, raw: binary.LittleEndian.AppendUint64(nil, bits)[:t.size()]}
}

func list[T any](elem Type, items []T) Value {
	v := Value{Type: Array, Elem: elem, Len: len(items)}
	for _, item := range items {
		v.raw = append(v.raw, Of(item).raw...)
	}
	return v
}

// append writes the value as the file holds it, an array with its head.
func (v Value) append(b []byte) []byte {
	if v.Type == Array {
		b = binary.LittleEndian.AppendUint32(b, uint32(v.Elem))
		b = binary.LittleEndian.AppendUint64(b, uint64(v.Len))
	}
	return append(b, v.raw...)
}
