#!/bin/sh
# Holds drover's CUDA backend to its tests on this machine's card and measures
# it: run.sh [PART...], by default all of
#
#   conformance   the test binary of package cuda
#   golden        reference data, from outside
#   sanitizer     compute-sanitizer's four tools over a few models and cases
#   speed         synthetic models against what this card copies and multiplies
#   peer          llama.cpp beside it, where LLAMA_CPP names its source (a folder or a git bundle)
#   nvcc          the hot kernels one by one, as shipped and as nvcc compiles them
#   matmul        products for prompts one by one, of both tiers, and whether they agree
#   profile       where the time of the slowest kernels goes, by ncu
#
# Logs: $OUT (here/out). The last thing printed is one table. LIMIT is how many
# seconds a part may take (540).
set -u
here=$(cd "$(dirname "$0")" && pwd)
OUT=${OUT:-$here/out}
LIMIT=${LIMIT:-540}
mkdir -p "$OUT"
# the tests would otherwise build a software device; a name is looked up as the system does
export DROVER_CUDA_LIBRARY="${DROVER_CUDA_LIBRARY:-libcuda.so.1}"
export PYTHONUNBUFFERED=1
drover=$here/drover
golden=$here/golden
[ -f "$drover" ] || python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/bin.tar.xz" "$here" || exit 1
[ -d "$golden" ] || python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/golden.tar.xz" "$golden" || exit 1
table=$(mktemp)
trap 'rm -f "$table"' EXIT
broken=0

have() { command -v "$1" >/dev/null 2>&1; }

# row PART VERDICT TEXT
row() { printf '%-12s %-8s %s\n' "$1" "$2" "$3" >>"$table"; }

# verdict PART STATUS TEXT: a row for a part that ran
verdict() {
	case $2 in
	0) row "$1" ok "$3" ;;
	124 | 137) broken=1; row "$1" FAILED "$3; not done after $LIMIT s" ;;
	*) broken=1; row "$1" FAILED "$3" ;;
	esac
}

machine() {
	{
		date -u
		have nvidia-smi && nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv,noheader 2>&1
		"$drover" devices 2>&1
	} | tee "$OUT/machine.txt"
}

conformance() {
	log=$OUT/conformance.txt
	# a process has one NVML, and the tests bring theirs
	(cd "$here" && DROVER_NVML_LIBRARY=none timeout "$LIMIT" ./cuda.test -test.v -test.timeout 0 ${TESTS:+-test.run "$TESTS"}) >"$log" 2>&1
	status=$?
	grep -E '^( *)--- FAIL|panic:|fatal error' "$log" | head -n 40
	verdict conformance $status "$(grep -c -- '--- PASS' "$log") passed, $(grep -c -- '--- FAIL' "$log") failed, $(grep -c -- '--- SKIP' "$log") skipped"
}

golden() {
	log=$OUT/golden.txt
	# most of it is starting processes: a few models at once
	(cd "$golden/models" && ls -S ${MODELS:-*}.gguf) | sed 's/\.gguf$//' |
		timeout "$LIMIT" xargs -P $((($(nproc) + 1) / 2)) -I NAME python3 "$here/golden.py" --drover "$drover" --golden "$golden" --device cuda --only logits,nll,greedy --models NAME >"$log" 2>&1
	status=$?
	grep FAIL "$log" | head -n 40
	verdict golden $status "$(awk '/ passed, / { p += $1; f += $3 } END { print p + 0 " passed, " f + 0 " failed" }' "$log")"
}

sanitizer() {
	have compute-sanitizer || { row sanitizer 'not run' 'no compute-sanitizer here'; return; }
	log=$OUT/sanitizer.txt
	: >"$log"
	for tool in memcheck racecheck initcheck synccheck; do
		failed='' ran=0
		for model in ${SANITIZE_MODELS:-s260k-w256-q4_k_m s260k-ff192-q8_0 s260k-f16}; do
			ran=$((ran + 1))
			timeout "$LIMIT" compute-sanitizer --tool $tool --error-exitcode 9 --print-limit 20 "$drover" run -m "$golden/models/$model.gguf" \
				--device cuda --raw --temp 0 --ignore-eos -n 12 "Once upon a time there was a little girl who lived in a house by the sea" >>"$log" 2>&1 ||
				failed="$failed $model"
		done
		ran=$((ran + 1))
		(cd "$here" && timeout "$LIMIT" compute-sanitizer --tool $tool --error-exitcode 9 --print-limit 20 ./cuda.test -test.run "${SANITIZE_TESTS:-TestMatvec|TestMatmul|TestEmbed|TestPromptAttention}" -test.timeout 0) >>"$log" 2>&1 ||
			failed="$failed tests"
		[ -z "$failed" ]
		verdict "$tool" $? "$ran runs${failed:+, wrong:$failed}"
	done
	grep -E '^========= [A-Z]' "$log" | sort | uniq -c | sort -rn | head -n 20
}

speed() {
	timeout $((LIMIT + 30)) python3 "$here/speed.py" --drover "$drover" --out "$OUT" --seconds "$LIMIT" ${SPEED:-} 2>"$OUT/speed.txt" | tee "$OUT/speed-table.txt"
	[ -s "$OUT/speed-table.txt" ]
	verdict speed $? "$(tail -n 1 "$OUT/speed-table.txt" "$OUT/speed.txt" | grep -v '^$' | sed -n 2p)"
}

peer() {
	[ -n "${LLAMA_CPP:-}" ] || { row peer 'not run' 'LLAMA_CPP does not name llama.cpp'"'"'s source'; return; }
	log=$OUT/peer-build.txt
	source=$LLAMA_CPP
	if [ -f "$source" ]; then
		source=$here/llama.cpp
		[ -d "$source" ] || git clone -q "$LLAMA_CPP" "$source" >"$log" 2>&1
	fi
	# a build that the limit ends goes on where it was, the next time
	[ -f "$here/llama-build/build.ninja" ] ||
		cmake -S "$source" -B "$here/llama-build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native \
			-DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF >>"$log" 2>&1
	timeout "$LIMIT" cmake --build "$here/llama-build" --target llama-bench >>"$log" 2>&1
	status=$?
	[ $status -eq 0 ] || { tail -n 5 "$log"; verdict peer $status 'llama-bench is not built'; return; }
	timeout $((LIMIT + 30)) python3 "$here/speed.py" --drover "$drover" --out "$OUT" --seconds "$LIMIT" --peer "$here/llama-build/bin/llama-bench" ${PEER:-} 2>"$OUT/peer.txt" | tee "$OUT/peer-table.txt"
	[ -s "$OUT/peer-table.txt" ]
	verdict peer $? "$(tail -n 1 "$OUT/peer-table.txt")"
}

nvcc() {
	timeout "$LIMIT" python3 "$here/nvcc.py" --kernels "$here/kernels" ${NVCC:-} 2>"$OUT/nvcc.txt" | tee "$OUT/nvcc-table.txt"
	[ -s "$OUT/nvcc-table.txt" ]
	verdict nvcc $? "$(tail -n 1 "$OUT/nvcc.txt")"
}

matmul() {
	timeout "$LIMIT" python3 "$here/matmul.py" --ptx "$here/kernels/ptx" ${MATMUL:-} >"$OUT/matmul.txt" 2>&1
	status=$?
	cat "$OUT/matmul.txt"
	verdict matmul $status "$(tail -n 1 "$OUT/matmul.txt")"
}

profile() {
	have ncu || { row profile 'not run' 'no ncu here'; return; }
	metrics=gpu__time_duration.sum,dram__bytes_read.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,sm__throughput.avg.pct_of_peak_sustained_elapsed
	metrics=$metrics,sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active,smsp__issue_active.avg.pct_of_peak_sustained_active
	metrics=$metrics,launch__registers_per_thread,sm__warps_active.avg.pct_of_peak_sustained_active
	for model in ${PROFILE:-llama3-8b:Q4_0 llama3-8b:Q4_K_M}; do
		# the last kernels of a run are those of one test after another: two layers' worth of each would do
		timeout "$LIMIT" ncu --csv --page raw --metrics $metrics --clock-control none -k 'regex:matvec|matmul|attention|norm|rope|combine|convert|act|top' --launch-skip "${SKIP:-200}" --launch-count "${COUNT:-400}" \
			"$drover" bench -m "synthetic:$model" --device cuda -p 512 -n 4 -r 1 --no-warmup -o json >"$OUT/profile-$(echo "$model" | tr ':' '-').csv" 2>"$OUT/profile.log"
		status=$?
		python3 "$here/ncu.py" "$OUT/profile-$(echo "$model" | tr ':' '-').csv" | tee -a "$OUT/profile.txt"
		verdict profile $status "$model"
	done
}

machine
[ $# -gt 0 ] || set -- conformance golden sanitizer speed nvcc matmul peer profile
for part; do
	case $part in
	conformance | golden | sanitizer | speed | nvcc | matmul | peer | profile)
		printf '\n== %s\n' "$part"
		began=$(date +%s)
		$part
		printf '== %s: %d s\n' "$part" $(($(date +%s) - began))
		;;
	*) echo "run.sh: no part $part" >&2; exit 2 ;;
	esac
done
echo
head -n 3 "$OUT/machine.txt"
[ ! -s "$OUT/speed-table.txt" ] || cat "$OUT/speed-table.txt"
[ ! -s "$OUT/nvcc-table.txt" ] || cat "$OUT/nvcc-table.txt"
[ ! -s "$OUT/peer-table.txt" ] || cat "$OUT/peer-table.txt"
cat "$table" | tee "$OUT/table.txt"
exit $broken
