package sample

import "math"

// worse, better and nearer are strict total orders: ids break ties.
func worse(a, b candidate) bool {
	return a.logit < b.logit || a.logit == b.logit && a.id > b.id
}

func better(a, b candidate) bool { return worse(b, a) }

func nearer(a, b candidate) bool {
	return a.p < b.p || a.p == b.p && a.id < b.id
}

// heapify puts the first of c in the order of less at c[0].
func heapify(c []candidate, less func(a, b candidate) bool) {
	for i := len(c)/2 - 1; i >= 0; i-- {
		siftDown(c, i, less)
	}
}

func siftDown(c []candidate, i int, less func(a, b candidate) bool) {
	for {
		child := 2*i + 1
		if child >= len(c) {
			return
		}
		if child+1 < len(c) && less(c[child+1], c[child]) {
			child++
		}
		if !less(c[child], c[i]) {
			return
		}
		c[i], c[child] = c[child], c[i]
		i = child
	}
}

// prefix sorts c by less only as far as wanted: next folds the candidates in
// their order until it says stop. The first n of c are then those, in order.
// O(len + n log len), where a sort of a whole vocabulary would take 10 ms.
func prefix(c []candidate, less func(a, b candidate) bool, next func(sum float64, x candidate) (float64, bool)) (n int) {
	heapify(c, less)
	sum, stop := 0.0, false
	for n < len(c) && !stop {
		sum, stop = next(sum, c[0])
		n++
		end := len(c) - n
		c[0], c[end] = c[end], c[0] // what is taken gathers at the end, the last taken first
		siftDown(c[:end], 0, less)
	}
	for i, j := 0, len(c)-1; i < j; i, j = i+1, j-1 {
		c[i], c[j] = c[j], c[i]
	}
	return n
}

// softmax sets p to exp((logit-max)/temp) and gives their sum.
func softmax(c []candidate, temp float64) (sum float64) {
	max := maxLogit(c)
	for i := range c {
		c[i].p = exp((c[i].logit - max) / temp)
		sum += c[i].p
	}
	return sum
}

func maxLogit(c []candidate) float64 {
	max := math.Inf(-1)
	for i := range c {
		if c[i].logit > max {
			max = c[i].logit
		}
	}
	return max
}

// exp is e to the x for x <= 0, within 2 units in the last place and the same
// on every platform, which math.Exp (assembly on some) does not promise. The
// conversions keep the compiler from fusing products into sums.
func exp(x float64) float64 {
	const (
		log2e = 1 / math.Ln2
		ln2Hi = 6.93147180369123816490e-01 // the first 33 bits of ln 2, so that k*ln2Hi is exact
		ln2Lo = 1.90821492927058770002e-10
	)
	inverse := [...]float64{1, 1, 1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040,
		1. / 40320, 1. / 362880, 1. / 3628800, 1. / 39916800} // 1/n!
	if !(x > -700) { // 1e-304: nothing beside the 1 of the largest
		return 0
	}
	k := math.Floor(float64(x*log2e) + 0.5)
	r := (x - float64(k*ln2Hi)) - float64(k*ln2Lo) // |r| <= ln2/2
	// Taylor, even and odd powers apart so that they overlap; the first term left out is below 1e-18
	q := float64(r * r)
	even, odd := 1./479001600, 1./6227020800
	for i := 5; i >= 0; i-- {
		even = inverse[2*i] + float64(even*q)
		odd = inverse[2*i+1] + float64(odd*q)
	}
	sum := even + float64(odd*r)
	return math.Ldexp(sum, int(k))
}
