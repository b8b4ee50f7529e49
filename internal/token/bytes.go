package token

import "unicode/utf8"

// Byte-level BPE writes each byte as a printable character, so that tokens are
// text (Radford et al., GPT-2, encoder.py, bytes_to_unicode): the printable ones
// of Latin-1 stand for themselves, the others are numbered from U+0100.

// unspell appends the bytes that text spells. A character that spells none
// stands for itself, and then ok is false.
func unspell(dst []byte, text string) (b []byte, ok bool) {
	ok = true
	for _, r := range text {
		switch {
		case '!' <= r && r <= '~', '¡' <= r && r <= '¬', '®' <= r && r <= 'ÿ':
			dst = append(dst, byte(r))
		case 0x100 <= r && r <= 0x120: // 0x00 to 0x20
			dst = append(dst, byte(r-0x100))
		case 0x121 <= r && r <= 0x142: // 0x7F to 0xA0
			dst = append(dst, byte(r-0x121+0x7F))
		case r == 0x143:
			dst = append(dst, 0xAD)
		default:
			dst, ok = utf8.AppendRune(dst, r), false
		}
	}
	return dst, ok
}
