package token

import "sort"

// Segment is a part of a prompt. Control tokens are read from Text only where
// Special is set: text that a template writes, not text that a user typed.
type Segment struct {
	Text    string
	Special bool
}

// EncodeSegments encodes the segments as one text: ids are those of Encode with
// parseSpecial over the whole, except that no control token is read from, or
// across the edge of, a segment that is not Special. So neighbours merge over
// the edges of segments, and the space that SentencePiece puts in front stands
// where Encode would put it: before the text, and after each special token.
func EncodeSegments[S ~struct {
	Text    string
	Special bool
}](t *Tokenizer, segments []S, addSpecial bool) []int32 {
	var text []byte
	ends := make([]int, len(segments)) // of each segment in text
	for i, s := range segments {
		text = append(text, Segment(s).Text...)
		ends[i] = len(text)
	}
	return t.encodeScoped(string(text), addSpecial, func(lo, hi int) bool {
		i := sort.SearchInts(ends, lo+1)
		return Segment(segments[i]).Special && hi <= ends[i]
	})
}
