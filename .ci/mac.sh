#!/bin/sh
# Holds drover's Metal backend to its tests on this Mac and measures it: mac.sh
# [PART...], by default all of binary, compile, conformance, golden, measure and
# speed (docs/on-a-mac.md). Logs: bin/mac. The last thing printed is one table.
# MODELS names the synthetic models of speed.
set -u
cd "$(dirname "$0")/.."
out=bin/mac
mkdir -p "$out"
table=$out/table.txt
: >"$table"
broken=0
drover=$out/drover
export CGO_ENABLED=0

# row PART VERDICT TEXT
row() { printf '%-12s %-8s %s\n' "$1" "$2" "$3" >>"$table"; }

# verdict PART STATUS TEXT: a row for a part that ran
verdict() {
	if [ "$2" -eq 0 ]; then row "$1" ok "$3"; else broken=1; row "$1" FAILED "$3"; fi
}

# tests PART RUN: tests of package metal
tests() {
	go test -v -count=1 -timeout 0 -run "$2" ./metal >"$out/$1.txt" 2>&1
	status=$?
	grep -E '^( *)--- FAIL|panic:|fatal error' "$out/$1.txt" | head -n 40
	verdict "$1" $status "$(grep -c -- '--- PASS' "$out/$1.txt") passed, $(grep -c -- '--- FAIL' "$out/$1.txt") failed, $(grep -c -- '--- SKIP' "$out/$1.txt") skipped"
}

binary() {
	go run .ci/macho.go "$drover" >"$out/binary.txt" 2>&1 && "$drover" devices >>"$out/binary.txt" 2>&1
	verdict binary $? "$(grep '^metal' "$out/binary.txt" || tail -n 1 "$out/binary.txt")"
}

compile() { tests compile '^TestCompile$'; }
conformance() { tests conformance 'Test[^C]|^TestConformance$|^TestCuts$'; }

golden() {
	if [ ! -d "${DROVER_GOLDEN:-}/models" ] || [ ! -f "${DROVER_ACCEPT:-}/golden.py" ]; then
		row golden 'not run' 'DROVER_GOLDEN and DROVER_ACCEPT name no reference data'
		return
	fi
	python3 "$DROVER_ACCEPT/golden.py" --drover "$drover" --golden "$DROVER_GOLDEN" --device metal --only logits,nll,greedy >"$out/golden.txt" 2>&1
	verdict golden $? "$(tail -n 1 "$out/golden.txt")"
}

measure() {
	"$drover" devices --measure >"$out/measure.txt" 2>&1
	verdict measure $? "$(grep '^metal' "$out/measure.txt" || tail -n 1 "$out/measure.txt")"
}

speed() {
	for model in ${MODELS:-tinyllama-1.1b:Q4_0 tinyllama-1.1b:F16 llama-7b:Q4_0 llama3-8b:Q4_K_M llama3-8b:Q8_0 llama3-8b:Q6_K llama3-8b:F16}; do
		"$drover" bench -m "synthetic:$model" --device metal -p 512 -n 128 >"$out/speed.txt" 2>&1
		status=$?
		if [ $status -eq 5 ]; then
			row speed 'not run' "$model does not fit"
			continue
		fi
		grep -E '(pp|tg)[0-9]' "$out/speed.txt" >"$out/rows.txt"
		[ $status -eq 0 ] || verdict speed $status "$model: $(tail -n 1 "$out/speed.txt")"
		while IFS= read -r line; do
			row speed ok "$line"
		done <"$out/rows.txt"
	done
}

[ "$(uname -s)/$(uname -m)" = Darwin/arm64 ] || { echo "mac.sh: this is not an Apple silicon Mac" >&2; exit 1; }
go build -trimpath -o "$drover" ./cmd/drover || exit 1
row machine '' "$(sysctl -n machdep.cpu.brand_string), $(($(sysctl -n hw.memsize) >> 30)) GiB, macOS $(sw_vers -productVersion), commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
for part in ${*:-binary compile conformance golden measure speed}; do
	case $part in
	binary | compile | conformance | golden | measure | speed) $part ;;
	*) echo "mac.sh: no part $part" >&2; exit 2 ;;
	esac
done
cat "$table"
exit $broken
