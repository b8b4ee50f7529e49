#!/bin/sh
# Builds, tests and packs drover: ./build.sh [TARGET]
#
#   (none)        bin/drover for this machine
#   test          the tests, at most 5 minutes; names what optional is missing.
#                 Of the largest products of cases a sample (go test -short)
#   test all      what CI runs; needs DROVER_GOLDEN and DROVER_ACCEPT
#   test full [PART...]  the whole product of shapes and formats, planted mistakes, slowdowns
#                 and long fuzzing: about two hours, or the parts that are named
#   deps [--yes]  installs the optional tools (Debian, Ubuntu, Fedora, Homebrew)
#   kernels [MODULE...]  the GPU kernels' PTX and their report, in cuda/kernels
#   sim           the software devices of the tests, in bin/sim
#   metalsim      bin/drover-metalsim: drover on the software Metal device (Linux, x86_64)
#   gpu-bundle DIR  binaries, reference data and run.sh for a machine with a card and no Go
#   gpu [PART...]   the same, here: run.sh on this machine's card; on a Mac docs/on-a-mac.md
#   release       archives for every platform with checksums, in bin/release
set -eu
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- what a build needs

need_go() {
	have go || die "Go 1.26 or newer is missing: https://go.dev/dl/"
	# asked outside the module, or an old go would fetch a newer one unasked
	version=$(cd / && GOTOOLCHAIN=local go version)
	set -- $(printf '%s\n' "$version" | sed -n 's/.*go\([0-9][0-9]*\)\.\([0-9][0-9]*\).*/\1 \2/p')
	[ "${1:-0}" -gt 1 ] || { [ "${1:-0}" -eq 1 ] && [ "${2:-0}" -ge 26 ]; } ||
		die "Go 1.26 or newer is needed, this is \"$version\": https://go.dev/dl/"
}

need_modules() {
	GOPROXY=off go list -deps ./... >/dev/null 2>&1 && return
	say "fetching the Go modules: the first build needs the network, later ones do not"
	go mod download || die "the Go modules are missing: run 'go mod download' once with network access"
}

# Without a C compiler Go builds everything but the CUDA backend.
choose_cgo() {
	if [ "${CGO_ENABLED:-1}" = 0 ]; then
		say "CGO_ENABLED=0: CUDA is off"
	elif ! have "$(go env CC | cut -d' ' -f1)"; then
		say "no C compiler ($(go env CC)): building with CGO_ENABLED=0, CUDA is off"
		export CGO_ENABLED=0
	fi
}

build() {
	mkdir -p bin
	go build -trimpath -o "bin/drover$(go env GOEXE)" ./cmd/drover
}

prepare() {
	need_go
	need_modules
	choose_cgo
}

# the kernels' compiler and checker
kernels_source='.ci/kernels.go .ci/rules.go .ci/ptxas.go .ci/hazards.go .ci/faults.go'
kernels() { go run $kernels_source "$@"; }

# --- parts of the tests; each returns 0 when all is well

gotest() { "$scratch/gotest" -totals "$totals" "$@"; }

format() (
	unformatted=$(gofmt -l .) || return 1
	[ -z "$unformatted" ] || { say "gofmt would change: $unformatted"; return 1; }
)

vet() {
	go vet ./... && go vet -tags slowdown ./internal/bench ./cmd/drover || return 1
	for sources in '.ci/gotest.go .ci/gotest_test.go' '.ci/counts.go .ci/counts_test.go' '.ci/metal_counts.go .ci/metal_counts_test.go' '.ci/macho.go .ci/macho_test.go' '.ci/page.go .ci/page_test.go' "$kernels_source .ci/kernels_test.go .ci/hazards_test.go .ci/faults_test.go"; do
		go vet $sources && go test $sources || return 1
	done
}

tests() { gotest "$@" ./...; }

# the tests with everything that they can check, nothing skipped
tests_all() (
	export DROVER_CONFORMANCE="$tables"
	gotest -noskip -count=1 -timeout 20m ./...
)

# The names of kernel sets that this machine can run, from the system itself, so
# that a set which drover fails to find is an error.
kernel_sets() {
	echo generic
	case $(go env GOHOSTARCH) in
	amd64)
		flags=" $(sed -n 's/^flags[^:]*://p' /proc/cpuinfo 2>/dev/null | head -n 1) "
		case $flags in *" avx2 "*) echo avx2 ;; esac
		case $flags in *" avx_vnni "*) echo avxvnni ;; *) say "this CPU has no AVX-VNNI: avxvnni goes untested" ;; esac
		case $flags in *" avx512_vnni "*) echo avx512 ;; *) say "this CPU has no AVX-512 VNNI: avx512 goes untested" ;; esac
		case $flags in *" amx_bf16 "*) echo amx ;; *) say "this CPU has no AMX: its kernels go untested, what is around them runs with Go's" ;; esac
		;;
	arm64)
		echo neon
		flags=" $(sed -n 's/^Features[^:]*://p' /proc/cpuinfo 2>/dev/null | head -n 1) $(sysctl -n hw.optional.arm.FEAT_I8MM 2>/dev/null) "
		case $flags in *" i8mm "* | *" 1 "*) echo i8mm ;; *) say "this CPU has no I8MM: i8mm goes untested" ;; esac
		;;
	esac
}

noasm() (
	# of the program's tests those that products of the CPU decide: the others take seven minutes more
	set -- RunComputeFlags RunJSON RunSameText RunSampling RunStops RunTemplate RunTwoPrompts Logits Perplexity Verify VerifyDemo VerifySets \
		BenchJSON BenchProfile BenchInterrupted Doctor Devices CPUAlone Failures ChatLoop
	there=$(go test -tags noasm -list '^Test' ./cmd/drover) || return 1
	for name; do
		echo "$there" | grep -qx "Test$name" || { say "noasm: cmd/drover has no Test$name: is it another's name now?"; return 1; }
	done
	go vet -tags noasm ./... && gotest -noskip -count=1 -timeout 20m -tags noasm ./cpu/... ./internal/device ./internal/engine &&
		gotest -noskip -count=1 -timeout 20m -tags noasm -run "^Test($(echo "$*" | tr ' ' '|'))\$" ./cmd/drover
)

# with the race detector: where goroutines meet; of the conformance suite every
# case, on one format and two shapes
race() (
	gotest -noskip -count=1 -timeout 20m -race ./internal/engine ./internal/model ./internal/token ./internal/bench &&
		gotest -noskip -count=1 -race -run '^TestConcurrent$' ./cmd/drover || return 1
	export DROVER_FULL=1
	gotest -noskip -count=1 -race -timeout 20m -run 'TestConformance/./(gqa|moe)$/Q4_0$' ./cpu
)

# arm64 kernels on an amd64 machine. Of the conformance suite floats, and for
# each set a format of every panel: TestSets and TestPackSets hold the kernels of
# the others to Go's.
qemu() (
	if [ "$(go env GOHOSTARCH)" = arm64 ]; then
		say "this machine is arm64: its kernels were tested above"
		return 0
	fi
	have qemu-aarch64 || { say "qemu-aarch64 is missing: ./build.sh deps"; return 1; }
	export CGO_ENABLED=0 GOOS=linux GOARCH=arm64
	formats='^TestConformance$/^neon$/./^(F32|F16|Q8_0|Q4_K|Q2_K|IQ3_S)$|^TestConformance$/^i8mm$/./^(Q4_0|Q5_K|Q6_K|Q2_K)$'
	# 94 s on two cores, four minutes on slower ones: 12 are a hang, as of a wake-up lost where QEMU reorders atomics (cpu/pool.go)
	gotest -noskip -count=1 -timeout 12m -exec qemu-aarch64 -skip '^TestConformance$' ./cpu/... ./internal/quant &&
		gotest -noskip -count=1 -timeout 12m -exec qemu-aarch64 -run "$formats" ./cpu
)

# a slow-down of 5 % is found by bench and compare, and none between equal builds:
# 20 trials. The machine should do nothing else.
slowdown() { gotest -noskip -count=1 -timeout 60m -tags slowdown -run '^TestSlowdown$' ./cmd/drover; }

platforms='linux/amd64 linux/arm64 darwin/arm64 windows/amd64'

cross() (
	for platform in $platforms; do
		echo "$platform"
		(
			export CGO_ENABLED=0 GOOS="${platform%/*}" GOARCH="${platform#*/}"
			go build -o "$scratch/$GOOS" ./cmd/drover && go vet ./...
		) || return 1
	done
	go run .ci/macho.go "$scratch/darwin"
)

# What the conformance suite ran on each device, by the parts above, is what
# docs/conformance.txt says of the devices that there are: a CPU lacks some kernel sets.
conformance() (
	sets=" $(kernel_sets | tr '\n' ' ')"
	awk -v sets="$sets" '/^device / { set = $2; sub(/,$/, "", set); here = !sub(/^cpu-/, "", set) || index(sets, " " set " ") } here' \
		docs/conformance.txt >"$scratch/conformance.txt"
	for table in "$tables"/*.txt; do
		# one of these two, by the machine: see cpu/tiles_test.go
		case $table in */cpu-amx*.txt | */cpu-tiles*.txt) continue ;; esac
		[ -f "$table" ] && cat "$table" && echo
	done >bin/conformance.txt
	diff -u "$scratch/conformance.txt" bin/conformance.txt ||
		{ say "docs/conformance.txt is not what ran here; if it should be: its tables become those of bin/conformance.txt"; return 1; }
)

# golden ARGS: the black-box checks; prints failures and the count
golden() (
	log=$scratch/golden.log
	result=0
	python3 "$DROVER_ACCEPT/golden.py" --drover "bin/drover$(go env GOEXE)" --golden "$DROVER_GOLDEN" --mean 1.05 "$@" >"$log" 2>&1 || result=$?
	count=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed$/\1 \2/p' "$log" | tail -n 1)
	[ "$result" -eq 0 ] && [ -n "$count" ] && tail -n 2 "$log" || head -n 60 "$log"
	echo "${count:-0 1}" >>"$totals"
	return "$result"
)

golden_set() (
	export DROVER_CPU="$1"
	golden --only logits,nll,greedy --models 's260k-w256-*' --prompts once &&
		golden --only logits,nll,greedy --models 's260k-f[1f3]*' --prompts park,bytes
)

# the software devices, for the parts below
software() {
	sim && cuda_sim=$PWD/bin/sim/libcuda.so.1 && metalsim
}

# the Metal backend on the software Metal device, without cgo as on a Mac
metal() (
	export CGO_ENABLED=0 DROVER_CONFORMANCE="$tables"
	go vet -tags metalsim ./metal && gotest -noskip -count=1 -timeout "${1:-20m}" -tags metalsim ./metal
)

# races on threadgroup memory, reads there of what nobody wrote, and orders that
# nothing promises: every kernel on one shape or more
metal_detectors() (
	export CGO_ENABLED=0 DROVER_METALSIM_CHECK=1 DROVER_METALSIM_ORDER=3 DROVER_METALSIM_LAYOUT=5
	gotest -noskip -count=1 -timeout 20m -tags metalsim -run '^TestConformance$/^(gqa|moe)$/^(F32|Q4_K)$|^Test(Attention|Cuts|Matvec|Matmul|Embed|Experts|Gate)$' ./metal
)

# a model of each kind of format on the software Metal device, through the binary
golden_metal() (
	golden --drover bin/drover-metalsim --device metal --only logits,nll,greedy --prompts once --models 's260k-f*' &&
		golden --drover bin/drover-metalsim --device metal --only logits,nll --prompts once --models 's260k-w256-*'
)

# what a token costs on the software Metal device is what docs/metal-counts.txt says
metal_counts() (
	go run .ci/metal_counts.go bin/drover-metalsim bin/sim/libmetalsim.so >bin/metal-counts.txt || return 1
	diff -u docs/metal-counts.txt bin/metal-counts.txt ||
		{ say "docs/metal-counts.txt is not what was counted here; if it should be: cp bin/metal-counts.txt docs/"; return 1; }
)

# every model of the reference data on the software card
golden_cuda() (
	export DROVER_CUDA_LIBRARY="$cuda_sim" DROVER_NVML_LIBRARY=none
	golden --device cuda --only logits,nll,greedy --prompts once
)

# A model in F32 over two software cards, too small for it, and the CPU, which is
# made to look so slow that it carries only what the cards have no room for.
golden_split() (
	export DROVER_CUDA_LIBRARY="$cuda_sim" DROVER_NVML_LIBRARY=none XDG_STATE_HOME="$scratch/state"
	export DROVER_SIM_CUDA='name=A,mem=900KiB,sms=1000;name=B,mem=900KiB,sms=1000'
	drover=bin/drover$(go env GOEXE) devices=cuda:0,cuda:1,cpu
	DROVER_CUDA_LIBRARY=none "$drover" devices --measure >/dev/null || return 1
	sed 's/\("\(read_bytes\|matrix_ops\|float_ops\)_per_s":\) [0-9.e+]*/\1 1e8/' "$scratch"/state/drover/rates/cpu-*.json >"$scratch/slow" &&
		cp "$scratch/slow" "$scratch"/state/drover/rates/cpu-*.json || return 1
	stages=$("$drover" run --json --tokens 1,2 -n 1 -m "$DROVER_GOLDEN/models/s260k-f32.gguf" --device "$devices" -c 512 -b 32 -ctk f32 -ctv f32 | grep -o '"predicted_ms"' | wc -l)
	[ "$stages" -eq 3 ] || { say "golden split: $stages stages, want 3"; return 1; }
	golden --device "$devices" --extra '-c 512 -b 32' --only logits,nll,greedy --models 's260k-f32' --prompts once,park,dog
)

# races on shared memory, and reads of what nobody wrote: every kernel on one
# shape or more, and the whole forward pass on few
detectors() (
	export DROVER_SIM_CHECK=1 DROVER_SIM_ORDER=3
	gotest -noskip -count=1 -timeout 20m -run '^Test(Matvec|Embed|PromptAttention)$|^TestMatvec(Experts|Gate)$|^TestMatmulExperts$' ./cuda &&
		gotest -noskip -count=1 -timeout 20m -run '^TestConformance$/./^(gqa|moe)$/^(F16|Q4_0|Q6_K)$' ./cuda
)

# what a token costs on the software card is what docs/cuda-counts.txt says
cuda_counts() (
	go run .ci/counts.go "bin/drover$(go env GOEXE)" "$cuda_sim" >bin/cuda-counts.txt || return 1
	diff -u docs/cuda-counts.txt bin/cuda-counts.txt ||
		{ say "docs/cuda-counts.txt is not what was counted here; if it should be: cp bin/cuda-counts.txt docs/"; return 1; }
)

# the pages of compare --html in headless Chromium, by axe-core's rules; absent
# tools are a failure where CI is set
page() (
	absent=''
	browser || absent=chromium
	[ -f "$axe" ] || absent="$absent${absent:+ and }axe-core"
	if [ -n "$absent" ]; then
		say "missing: $absent (./build.sh deps); how the pages of compare look and read goes unchecked"
		[ "${CI:-false}" != true ]
		return
	fi
	samples=internal/report/testdata
	go run .ci/page.go "bin/drover$(go env GOEXE)" "$axe" bin/page "$samples/history.jsonl" "$samples/before.jsonl" "$samples/after.jsonl" "$samples/llama-bench.json"
)

browser() { have chromium || have chromium-browser || have google-chrome; }

# deadline_only LOG: the fuzzer found nothing, and go test reports the end of
# its time as a failure, as it does now and then before Go 1.27 (golang/go#75804)
deadline_only() {
	[ "$(sed -n '/^--- FAIL: /{n;s/^ *//p;}' "$1")" = "context deadline exceeded" ] && ! grep -qi 'failing input' "$1"
}

# fuzz TIME: each fuzzer for a while; the seeds ran among the tests
fuzz() (
	for file in $(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do
		for name in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
			go test -run '^$' -fuzz "^$name\$" -fuzztime "$1" "./$(dirname "$file")" >"$scratch/fuzz.log" 2>&1 || deadline_only "$scratch/fuzz.log" ||
				{ echo "$file: $name"; cat "$scratch/fuzz.log"; return 1; }
			echo "$name: $(grep -o 'execs: [0-9]*' "$scratch/fuzz.log" | tail -n 1)"
		done
	done
)

# Generated files are what their generators make: build them in a copy, compare.
# go generate would pass over the files of other architectures, so their
# go:generate lines are run here.
generated() (
	copy=$scratch/generated
	mkdir "$copy"
	git ls-files -z | tar -cf - --null -T - | tar -xf - -C "$copy"
	for dir in $(git ls-files '*/_asm/go.mod' | xargs -n 1 dirname | xargs -n 1 dirname); do
		sed -n 's,^//go:generate ,,p' "$dir"/*.go >"$scratch/generate"
		[ -s "$scratch/generate" ] || { say "$dir: _asm without a go:generate line"; return 1; }
		(cd "$copy/$dir" && sh -ex "$scratch/generate" && cd _asm && go vet ./...) || return 1
	done
	git ls-files | sort >"$scratch/have"
	(cd "$copy" && find . -type f | sed 's,^\./,,' | sort) >"$scratch/made"
	cmp -s "$scratch/have" "$scratch/made" || { say "generators make other files than are committed:"; diff "$scratch/have" "$scratch/made"; return 1; }
	same=0
	while IFS= read -r file; do
		cmp -s "$file" "$copy/$file" || { say "$file is not what its generator makes"; same=1; }
	done <"$scratch/have"
	return "$same"
)

# --- targets

# part NAME COMMAND...: runs it, prints its time, remembers a failure
part() {
	name=$1
	shift
	printf '\n== %s\n' "$name"
	began=$(date +%s)
	verdict=ok
	"$@" || verdict=FAILED
	# a part that counts its tests has written to totals itself, others count one
	if [ "$(wc -l <"$totals")" -eq "$counted" ]; then
		[ "$verdict" = ok ] && echo 1 0 >>"$totals" || echo 0 1 >>"$totals"
	fi
	counted=$(wc -l <"$totals")
	[ "$verdict" = ok ] || broken="$broken, $name"
	times="$times$(printf '%-28s %5d s  %s' "$name" $(($(date +%s) - began)) "$verdict")
"
	printf '== %s: %s\n' "$name" "$verdict"
}

begin() {
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	totals=${DROVER_TOTALS:-$scratch/totals}
	tables=$scratch/conformance
	mkdir "$tables"
	touch "$totals"
	counted=$(wc -l <"$totals") broken='' times=''
	go build -o "$scratch/gotest" .ci/gotest.go
}

finish() {
	printf '\n%s' "$times"
	awk '{ passed += $1; failed += $2 } END { printf "%d passed, %d failed\n", passed, failed }' "$totals"
	[ -z "$broken" ] || die "failed: ${broken#, }"
}

missing() {
	[ -n "${DROVER_GOLDEN:-}" ] || say "not set: DROVER_GOLDEN (reference data); formats, tokenizers and models go unchecked against other engines"
	have qemu-aarch64 || [ "$(go env GOHOSTARCH)" = arm64 ] || say "missing: qemu-aarch64 (./build.sh deps); the arm64 kernels go untested"
	[ "$(go env CGO_ENABLED)" = 1 ] || say "missing: a C compiler; the race detector goes unused"
	have g++ || say "missing: a C++ compiler (./build.sh deps); the software devices, and all that runs on them, go untested"
	browser && [ -f "$axe" ] || say "missing: chromium or axe-core (./build.sh deps); how the pages of compare look and read goes unchecked"
	have clang++-19 || say "missing: clang-19 (./build.sh deps); whether the GPU kernels are what their source makes goes untested"
}

test_quick() {
	prepare
	begin
	part format format
	part vet vet
	part build build
	part tests tests -short
	missing
	finish
}

test_all() {
	[ -n "${DROVER_GOLDEN:-}" ] && [ -d "$DROVER_GOLDEN/models" ] || die "test all: DROVER_GOLDEN must name the folder of reference data"
	[ -n "${DROVER_ACCEPT:-}" ] && [ -f "$DROVER_ACCEPT/golden.py" ] || die "test all: DROVER_ACCEPT must name the folder of black-box checks"
	have python3 || die "test all: python3 is missing: ./build.sh deps"
	prepare
	[ "$(go env CGO_ENABLED)" = 1 ] || die "test all: the race detector needs a C compiler: ./build.sh deps"
	begin
	part format format
	part vet vet
	part build build
	part cross cross
	part generated generated
	part kernels kernels check
	part ptxas kernels assemble
	part tests tests_all
	part noasm noasm
	part race race
	part 'arm64 under qemu' qemu
	part metal metal
	part conformance conformance
	part page page
	part golden golden
	for set in $(kernel_sets); do
		part "golden $set" golden_set "$set"
	done
	part 'software devices' software
	part 'golden metal' golden_metal
	part 'metal detectors' metal_detectors
	part 'metal counts' metal_counts
	part 'golden cuda' golden_cuda
	part 'golden split' golden_split
	part 'cuda detectors' detectors
	part 'cuda counts' cuda_counts
	part fuzz fuzz 4s
	finish
}

# test_full [PART...]
test_full() {
	[ $# -gt 0 ] || set -- vet build tests metal faults slowdown fuzz
	for name; do
		case $name in
		vet | build | tests | metal | faults | slowdown | fuzz) ;;
		*) die "test full: unknown part \"$name\"; parts: vet, build, tests, metal, faults, slowdown, fuzz" ;;
		esac
	done
	prepare
	begin
	export DROVER_FULL=1
	for name; do
		case $name in
		tests) part tests tests -count=1 -timeout 0 ;;
		metal) part metal metal 0 ;;
		faults) part 'planted faults' kernels faults ;;
		fuzz) part fuzz fuzz 60s ;;
		*) part "$name" "$name" ;;
		esac
	done
	missing
	finish
}

# axe-core out of its npm package, into the user's cache
axe_version=4.14.1
axe=${XDG_CACHE_HOME:-$HOME/.cache}/drover/axe-core-$axe_version.js
get_axe() (
	[ ! -f "$axe" ] || return 0
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	say "npm pack axe-core@$axe_version, and its axe.min.js to $axe"
	(cd "$scratch" && npm pack --silent "axe-core@$axe_version" >/dev/null && tar -xzf axe-core-*.tgz) || return 1
	mkdir -p "$(dirname "$axe")"
	mv "$scratch/package/axe.min.js" "$axe"
)

# NVIDIA's assembler and disassembler out of their Python packages, into the
# user's cache; an older assembler too, that of drivers in use
ptxas_version=13.5.37 old_ptxas_version=13.0.88
get_ptxas() (
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/drover
	[ "$(uname -s)" = Linux ] || { say "deps: NVIDIA has no ptxas for $(uname -s): the kernels are not assembled here"; return 0; }
	get_tool nvidia-cuda-nvcc "$ptxas_version" ptxas ptxas &&
		get_tool nvidia-cuda-nvcc "$old_ptxas_version" ptxas ptxas-13.0 &&
		get_tool nvidia-cuda-nvdisasm "$ptxas_version" nvdisasm nvdisasm
)

# get_tool PACKAGE VERSION TOOL NAME: a tool of a package to $cache/NAME
get_tool() (
	[ ! -x "$cache/$4" ] || ! "$cache/$4" --version | grep -qF "V$2" || return 0
	scratch=$(mktemp -d)
	trap 'rm -rf "$scratch"' EXIT
	say "python3 -m pip install --no-deps --target ... $1==$2, and its $3 to $cache/$4"
	python3 -m pip install --quiet --no-deps --target "$scratch" "$1==$2" || return 1
	mkdir -p "$cache"
	mv "$(find "$scratch" -type f -name "$3")" "$cache/$4" && chmod +x "$cache/$4"
)

# deps [--yes]: the commands that are missing, as this system's packages
deps() {
	[ $# -eq 0 ] || [ "$*" = --yes ] || die "usage: build.sh deps [--yes]"
	wanted=''
	if have apt-get; then
		have qemu-aarch64 || wanted="$wanted qemu-user"
		have python3 || wanted="$wanted python3"
		python3 -m pip --version >/dev/null 2>&1 || wanted="$wanted python3-pip"
		have cc || wanted="$wanted gcc libc6-dev"
		have g++ || wanted="$wanted g++"
		have clang++-19 || wanted="$wanted clang-19"
		browser || wanted="$wanted chromium"
		have npm || wanted="$wanted npm"
		install='apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends'
	elif have dnf; then
		have qemu-aarch64 || wanted="$wanted qemu-user"
		have python3 || wanted="$wanted python3"
		python3 -m pip --version >/dev/null 2>&1 || wanted="$wanted python3-pip"
		have cc || wanted="$wanted gcc"
		have g++ || wanted="$wanted gcc-c++"
		have clang++-19 || wanted="$wanted clang19"
		browser || wanted="$wanted chromium"
		have npm || wanted="$wanted nodejs-npm"
		install='dnf install -y'
	elif have brew; then
		have python3 || wanted="$wanted python3"
		have clang++-19 || [ -x "$(brew --prefix)/opt/llvm@19/bin/clang++" ] || wanted="$wanted llvm@19"
		have npm || wanted="$wanted node"
		browser || say "Chromium, for the check of compare's page, is a cask: brew install --cask chromium"
		have cc || say "a C compiler comes with: xcode-select --install"
		brew=1 install='brew install'
	else
		die "deps: no apt-get, dnf or brew here; install qemu-user, python3, a C++ compiler and clang-19 by hand"
	fi
	if [ -n "$wanted" ]; then
		install_packages "$@"
	fi
	get_ptxas || die "deps: ptxas could not be had: pip's own words are above"
	get_axe || die "deps: axe-core could not be had: npm's own words are above"
	say "deps: everything is there"
}

install_packages() {
	install="$install$wanted"
	# Homebrew refuses to run as root
	[ "$(id -u)" -eq 0 ] || [ -n "${brew:-}" ] || { have sudo || die "deps: run as root: $install"; install="sudo sh -c '$install'"; }
	say "$install"
	if [ "$(id -u)" -ne 0 ] && [ "${1:-}" != --yes ]; then
		[ -t 0 ] || die "deps: no terminal to ask on; --yes runs the command above without asking"
		printf 'run this? [y/N] ' >&2
		read -r answer
		case $answer in y | Y | yes) ;; *) die "deps: nothing was installed" ;; esac
	fi
	sh -c "$install" || die "deps: that failed; a system without clang-19 in its packages gets it from the LLVM project's"
}

# sim_library FOLDER NAME FLAGS...: bin/sim/NAME of internal/sim/FOLDER's source,
# unless it is of that very source already
sim_library() (
	folder=internal/sim/$1 library=bin/sim/$2
	shift 2
	flags="-std=c++17 -fPIC -pthread -Wall -Wextra $*"
	sum=$({ echo "$flags"; g++ --version; find "$folder" -name '*.cpp' -o -name '*.h' | sort | xargs cat; } | cksum)
	[ ! -f "$library" ] || [ "$(cat "$library.sum" 2>/dev/null)" != "$sum" ] || return 0
	objects=$(mktemp -d)
	trap 'rm -rf "$objects"' EXIT
	ls "$folder"/*.cpp | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I '{}' sh -c 'g++ '"$flags"' -c "$1" -o "$2/$(basename "$1").o"' - '{}' "$objects" &&
		g++ $flags -shared -o "$library" "$objects"/*.o && echo "$sum" >"$library.sum"
)

sim() {
	have g++ || die "sim: a C++ compiler is missing: ./build.sh deps"
	mkdir -p bin/sim
	[ "$(uname -m)" = x86_64 ] || die "sim: the software devices compute with AVX2: it is for x86_64 alone"
	sim_library cuda libcuda.so.1 -O3 -march=x86-64-v3
	sim_library nvml libnvidia-ml.so.1
	# -Wa,-I: where the assembler finds the headers that the library carries
	sim_library metal libmetalsim.so -O2 -march=x86-64-v3 -Wl,-Bsymbolic -Wa,-Iinternal/sim/metal
	say "bin/sim: libcuda.so.1 libnvidia-ml.so.1 libmetalsim.so"
}

# drover with the Metal backend, which here runs on bin/sim/libmetalsim.so
metalsim() {
	have clang++-19 || die "metalsim: clang-19, which compiles the kernels, is missing: ./build.sh deps"
	sim && CGO_ENABLED=0 go build -tags metalsim -trimpath -o bin/drover-metalsim ./cmd/drover
}

compress_xz() { python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.compress(sys.stdin.buffer.read()))'; }

# gpu-bundle DIR: what a machine with a card needs, under 60 MiB
gpu_bundle() {
	[ $# -eq 1 ] || die "usage: build.sh gpu-bundle DIR"
	[ ! -d "$1" ] || [ -f "$1/run.sh" ] || [ -z "$(ls -A "$1")" ] || die "gpu-bundle: $1 holds other things"
	[ -d "${DROVER_GOLDEN:-}/models" ] || die "gpu-bundle: DROVER_GOLDEN must name the folder of reference data"
	[ -f "${DROVER_ACCEPT:-}/golden.py" ] || die "gpu-bundle: DROVER_ACCEPT must name the folder of black-box checks"
	prepare
	[ "$(go env CGO_ENABLED)" = 1 ] || die "gpu-bundle: CUDA needs a C compiler: ./build.sh deps"
	mkdir -p "$1/kernels/ptx"
	rm -f "$1/drover" "$1/cuda.test" # run.sh unpacks them
	go build -trimpath -ldflags '-s -w' -o bin/gpu-parts/drover ./cmd/drover
	go test -c -trimpath -ldflags '-s -w' -o bin/gpu-parts/cuda.test ./cuda
	tar -cf - -C bin/gpu-parts drover cuda.test | compress_xz >"$1/bin.tar.xz"
	cp .ci/gpu/* "$DROVER_ACCEPT/golden.py" "$1"
	cp cuda/kernels/*.txt cuda/kernels/*.cu cuda/kernels/*.h "$1/kernels"
	cp cuda/kernels/ptx/*.sm_90.ptx.gz cuda/kernels/ptx/*.sm_90a.ptx.gz "$1/kernels/ptx"
	(cd "$DROVER_GOLDEN" && tar -cf - models/s260k-*.gguf refs/s260k-* refs/reference_spread.csv quant) |
		compress_xz >"$1/golden.tar.xz"
	kib=$(du -sk --apparent-size "$1" | cut -f1)
	[ "$kib" -lt $((60 << 10)) ] || die "gpu-bundle: $kib KiB, more than 60 MiB"
	say "$1: $kib KiB; there: $1/run.sh"
}

gpu() {
	if [ "$(uname -s)" = Darwin ]; then
		prepare
		.ci/mac.sh "$@"
		return
	fi
	gpu_bundle bin/gpu
	OUT=$PWD/bin/gpu/out bin/gpu/run.sh "$@"
}

release() {
	prepare
	version=$(git describe --tags --always --dirty 2>/dev/null || echo unknown)
	rm -rf bin/release
	mkdir -p bin/release
	for platform in $platforms; do
		os=${platform%/*} arch=${platform#*/} exe=''
		[ "$os" != windows ] || exe=.exe
		name=drover-$version-$os-$arch
		mkdir "bin/release/$name"
		CGO_ENABLED=0 GOOS=$os GOARCH=$arch go build -trimpath -ldflags '-s -w' -o "bin/release/$name/drover$exe" ./cmd/drover
		cp LICENSE README.md "bin/release/$name/"
		tar -C bin/release -czf "bin/release/$name.tar.gz" "$name"
		rm -r "bin/release/$name"
		say "bin/release/$name.tar.gz"
	done
	(cd bin/release && { sha256sum ./*.tar.gz 2>/dev/null || shasum -a 256 ./*.tar.gz; } >SHA256SUMS)
}

case "$*" in
'') prepare && build && say "built bin/drover$(go env GOEXE)" ;;
test) test_quick ;;
'test all') test_all ;;
'test full' | 'test full '*) shift 2; test_full "$@" ;;
deps | 'deps '*) shift; deps "$@" ;;
release) release ;;
kernels | 'kernels '*) shift; need_go; kernels build "$@" ;;
gpu-bundle*) shift; gpu_bundle "$@" ;;
gpu | 'gpu '*) shift; gpu "$@" ;;
sim) sim ;;
metalsim) prepare && metalsim && say "built bin/drover-metalsim" ;;
*) die "unknown target \"$*\"; targets: (none), test, test all, test full [PART...], deps [--yes], kernels [MODULE...], sim, metalsim, gpu-bundle DIR, gpu [PART...], release" ;;
esac
