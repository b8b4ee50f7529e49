package bench

import (
	"math"
	"slices"
)

// meanDeviation is the mean and the sample deviation (n-1), 0 for one value.
func meanDeviation(x []float64) (mean, deviation float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	if len(x) < 2 {
		return mean, 0
	}
	for _, v := range x {
		deviation += (v - mean) * (v - mean)
	}
	return mean, math.Sqrt(deviation / float64(len(x)-1))
}

// interval is half the width of the 95 % confidence interval of the mean, by
// Student's t; false for fewer than two values, which have none.
func interval(x []float64) (half float64, ok bool) {
	if len(x) < 2 {
		return 0, false
	}
	_, deviation := meanDeviation(x)
	return student(len(x)-1) * deviation / math.Sqrt(float64(len(x))), true
}

// student is the 97.5 % quantile of Student's t distribution.
func student(freedom int) float64 {
	t := [...]float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
		2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042}
	if freedom <= len(t) {
		return t[freedom-1]
	}
	return 1.96 + 2.4/float64(freedom) // to 0.002
}

// The fewest values that outliers are looked for among, and how many deviations
// one is away from the median. A median deviation is 1 / 1.4826 of a normal
// distribution's standard deviation.
const leastForOutliers, outlying, normalMAD = 4, 3, 1.4826

// outliers are the indices of values far from the median, by the median of the
// deviations from it (MAD).
func outliers(x []float64) []int {
	found := []int{}
	if len(x) < leastForOutliers {
		return found
	}
	middle := median(x)
	away := make([]float64, len(x))
	for i, v := range x {
		away[i] = math.Abs(v - middle)
	}
	most := outlying * normalMAD * median(away)
	for i := range x {
		if away[i] > most && most > 0 {
			found = append(found, i)
		}
	}
	return found
}

func median(x []float64) float64 {
	s := slices.Sorted(slices.Values(x))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}
