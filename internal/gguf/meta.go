package gguf

import (
	"fmt"
	"math"
)

// Keys lists the metadata keys in file order.
func (f *File) Keys() []string { return f.keys }

// Value finds a key's value.
func (f *File) Value(key string) (Value, bool) {
	v, ok := f.values[key]
	return v, ok
}

// get is a key's value as read turns it into a T. Errors: ErrMissing, ErrType.
func get[T any](f *File, key, want string, read func(Value) (T, bool)) (T, error) {
	v, ok := f.values[key]
	if !ok {
		var zero T
		return zero, fmt.Errorf("key %q: %w", key, ErrMissing)
	}
	x, ok := read(v)
	if !ok {
		got := v.Type.String()
		if v.Type == Array {
			got += " of " + v.Elem.String()
		}
		return x, fmt.Errorf("key %q: %w: %s where %s is wanted", key, ErrType, got, want)
	}
	return x, nil
}

// Uint is an integer that is not negative.
func (f *File) Uint(key string) (uint64, error) {
	return get(f, key, "an integer that is not negative", Value.Uint)
}

// Int is an integer.
func (f *File) Int(key string) (int64, error) { return get(f, key, "an integer", Value.Int) }

// Float is a finite float32 or float64.
func (f *File) Float(key string) (float64, error) {
	return get(f, key, "a finite float", func(v Value) (float64, bool) {
		x, ok := v.Float()
		return x, ok && !math.IsNaN(x) && !math.IsInf(x, 0)
	})
}

// Bool is a bool.
func (f *File) Bool(key string) (bool, error) { return get(f, key, "a bool", Value.Bool) }

// Text is a string.
func (f *File) Text(key string) (string, error) { return get(f, key, "a string", Value.Text) }

// Texts is an array of strings.
func (f *File) Texts(key string) ([]string, error) {
	return get(f, key, "an array of strings", Value.Texts)
}

// Float32s is an array of float32.
func (f *File) Float32s(key string) ([]float32, error) {
	return get(f, key, "an array of float32", Value.Float32s)
}

// Int32s is an array of integers that fit into 32 bits.
func (f *File) Int32s(key string) ([]int32, error) {
	return get(f, key, "an array of 32-bit integers", Value.Int32s)
}
