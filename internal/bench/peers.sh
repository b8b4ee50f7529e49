#!/bin/sh
# Runs drover and other engines alternately on the same file, and prints how many
# times as fast drover is: the median of the pairs' ratios, the least and most.
#
#   peers.sh [-d DROVER] [-l LLAMA_BENCH]... [-o OLLAMA] [-m MODEL] [-p 512] [-n 128] [-r 5] [-t THREADS] [-c] [-O DIR]
#
#   -d  drover's program (bin/drover)
#   -l  a program llama-bench of llama.cpp or of what descends from it; may be repeated
#   -o  a program ollama; a server of it is started, and ended after; needs curl
#   -m  a GGUF file, or synthetic:SHAPE[:TYPE], which drover convert writes first
#   -p  prompt lengths, -n lengths of generation, with commas between; 0: none
#   -r  pairs: each runs both, and every other one the peer first
#   -t  threads; left out: each program's own choice, which may not be the same
#   -c  on the CPU alone
#   -O  keep what drover and llama-bench wrote in DIR, for drover compare
set -eu
export LC_ALL=C # sort and join must agree, and numbers have points

say() { printf '%s\n' "$*" >&2; }
die() { say "peers.sh: $*"; exit 2; }

drover=bin/drover llamas='' ollama='' model=synthetic:tinyllama-1.1b:Q4_0
prompts=512 gens=128 pairs=5 threads='' cpu='' keep=''
while getopts d:l:o:m:p:n:r:t:cO: flag; do
	case $flag in
	d) drover=$OPTARG ;;
	l) llamas="$llamas$OPTARG
" ;;
	o) ollama=$OPTARG ;;
	m) model=$OPTARG ;;
	p) prompts=$OPTARG ;;
	n) gens=$OPTARG ;;
	r) pairs=$OPTARG ;;
	t) threads=$OPTARG ;;
	c) cpu=1 ;;
	O) keep=$OPTARG ;;
	*) die "usage: peers.sh [-d DROVER] [-l LLAMA_BENCH]... [-o OLLAMA] [-m MODEL] [-p 512] [-n 128] [-r 5] [-t THREADS] [-c] [-O DIR]" ;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 0 ] || die "what is $1? files go with -m, programs with -l and -o"
[ -n "$llamas$ollama" ] || die "name a peer: -l LLAMA_BENCH or -o OLLAMA"
for number in "$pairs" "${threads:-1}"; do
	case $number in '' | 0* | *[!0-9]*) die "\"$number\" is not a number from 1 on" ;; esac
done
command -v "$drover" >/dev/null || die "no drover at $drover: ./build.sh makes it"
printf %s "$llamas" | while IFS= read -r peer; do
	command -v "$peer" >/dev/null || die "no llama-bench at $peer"
done
if [ -n "$ollama" ]; then
	command -v "$ollama" >/dev/null || die "no ollama at $ollama"
	command -v curl >/dev/null || die "no curl, which ollama is asked with"
fi

scratch=$(mktemp -d)
server=''
end() {
	[ -z "$server" ] || ! kill "$server" 2>/dev/null || wait "$server" || true
	rm -rf "$scratch"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

case $model in
synthetic:*)
	say "$drover convert -m $model"
	"$drover" convert -m "$model" -o "$scratch/model.gguf" >&2
	file=$scratch/model.gguf
	;;
*)
	[ -f "$model" ] || die "no file $model"
	file=$(cd "$(dirname "$model")" && pwd)/$(basename "$model")
	;;
esac

# --- one run of each; rates FILE prints a line "TEST TOKENS_PER_S" for each record

rates() {
	awk '
	function field(name,    at) {
		if (!match($0, "\"" name "\": *[-+0-9.eE]+")) return ""
		at = substr($0, RSTART, RLENGTH)
		sub(/^[^:]*: */, "", at)
		return at
	}
	field("avg_ts") != "" {
		test = field("n_prompt") > 0 ? "pp" field("n_prompt") : "tg" field("n_gen")
		print test, field("avg_ts")
	}' "$1"
}

run_drover() {
	set -- bench -m "$file" -p "$prompts" -n "$gens" -r 1 -o jsonl
	[ -z "$threads" ] || set -- "$@" -t "$threads"
	[ -z "$cpu" ] || set -- "$@" --device cpu
	"$drover" "$@" >"$scratch/drover.jsonl" 2>"$scratch/log" || { cat "$scratch/log" >&2; die "drover failed"; }
	rates "$scratch/drover.jsonl" >"$scratch/drover"
	[ -z "$keep" ] || cat "$scratch/drover.jsonl" >>"$keep/drover.jsonl"
}

# run_llama PROGRAM NAME
run_llama() {
	program=$1 kept=$2
	set -- -m "$file" -p "$prompts" -n "$gens" -r 1 -o jsonl
	[ -z "$threads" ] || set -- "$@" -t "$threads"
	[ -z "$cpu" ] || set -- "$@" -ngl 0
	"$program" "$@" >"$scratch/peer.jsonl" 2>"$scratch/log" || { cat "$scratch/log" >&2; die "$program failed"; }
	rates "$scratch/peer.jsonl" >"$scratch/peer"
	[ -z "$keep" ] || cat "$scratch/peer.jsonl" >>"$keep/$kept.jsonl"
}

# longest LIST: its largest number
longest() { echo "$1" | tr , '\n' | sort -n | tail -n 1; }

# start_ollama: its server and the model; it writes nothing but to the scratch
# folder, where the model is copied to
start_ollama() {
	export OLLAMA_HOST=127.0.0.1:11999 OLLAMA_MODELS="$scratch/ollama" no_proxy=127.0.0.1
	export OLLAMA_KEEP_ALIVE=30m OLLAMA_NUM_PARALLEL=1 OLLAMA_NO_CLOUD=1
	! curl -s -o /dev/null "http://$OLLAMA_HOST/" || die "something answers at $OLLAMA_HOST already: end it first"
	HOME=$scratch "$ollama" serve >"$scratch/serve" 2>&1 &
	server=$!
	tries=0
	until curl -s -o /dev/null "http://$OLLAMA_HOST/"; do
		tries=$((tries + 1))
		[ "$tries" -lt 60 ] && kill -0 "$server" 2>/dev/null || { cat "$scratch/serve" >&2; die "$ollama serve does not answer"; }
		sleep 1
	done
	say "ollama $(curl -s "http://$OLLAMA_HOST/api/version" | sed 's/.*"version":"\([^"]*\)".*/\1/')"
	printf 'FROM %s\n' "$file" >"$scratch/Modelfile"
	HOME=$scratch "$ollama" create peer -f "$scratch/Modelfile" >"$scratch/log" 2>&1 </dev/null || { cat "$scratch/log" >&2; die "$ollama create failed"; }
	# a change of these loads the model anew, so that all requests have the same
	most=$(longest "$prompts,$gens")
	options="\"num_ctx\":$((most + 512)),\"temperature\":0"
	[ -z "$threads" ] || options="$options,\"num_thread\":$threads"
	[ -z "$cpu" ] || options="$options,\"num_gpu\":0"
	ask 2 "warm up"
	word_cost
}

# ask N TEXT: up to N tokens that continue TEXT, without a template; the answer's
# figures are then in $seen (prompt tokens), $seen_ns, $made (tokens) and $made_ns.
# Each text begins otherwise than the one before, or the cache would hold a part of
# it, and with as many tokens
asked=0
ask() {
	asked=$((asked + 1))
	text=$(printf '%d%04d%s' $((asked % 10)) "$asked" "$2")
	printf '{"model":"peer","prompt":"%s","raw":true,"stream":false,"options":{%s,"num_predict":%d}}' "$text" "$options" "$1" |
		curl -sS -o "$scratch/answer" -H 'Content-Type: application/json' -d @- "http://$OLLAMA_HOST/api/generate" || die "no answer of ollama"
	seen=$(figure prompt_eval_count) seen_ns=$(figure prompt_eval_duration)
	made=$(figure eval_count) made_ns=$(figure eval_duration)
	! grep -q '^{"error"' "$scratch/answer" || { cat "$scratch/answer" >&2; die "ollama made no text"; }
}

# figure NAME: an integer of the answer; quotes within its text have a backslash
figure() { sed -n 's/.*"'"$1"'": *\([0-9][0-9]*\).*/\1/p' "$scratch/answer"; }

# words N: N words of one letter
words() { awk -v n="$1" 'BEGIN { while (n-- > 0) printf " a" }'; }

# word_cost: how many tokens a prompt has without its words, and each word
word_cost() {
	ask 1 "$(words 8)"
	few=$seen
	ask 1 "$(words 24)"
	each=$(((seen - few) / 16)) bare=$((few - 8 * ((seen - few) / 16)))
	[ "$each" -gt 0 ] || die "ollama counts $few tokens in 8 words and $seen in 24"
	for n in $(echo "$prompts" | tr , ' '); do
		[ "$n" -eq 0 ] || [ "$n" -gt $((bare + each)) ] || die "ollama's prompts have more than $((bare + each)) tokens: $n is too short"
	done
}

# run_ollama: a prompt has at most the tokens asked for and lacks less than a
# word's. Of n+1 tokens the first comes of the prompt: what is timed is n steps
run_ollama() {
	: >"$scratch/peer"
	for n in $(echo "$prompts" | tr , ' '); do
		[ "$n" -gt 0 ] || continue
		ask 1 "$(words $(((n - bare) / each)))"
		[ "$seen" -le "$n" ] && [ $((seen + each)) -gt "$n" ] || die "ollama read a prompt of $seen tokens for $n"
		awk -v n="$n" -v seen="$seen" -v ns="$seen_ns" 'BEGIN { print "pp" n, seen / ns * 1e9 }' >>"$scratch/peer"
	done
	for n in $(echo "$gens" | tr , ' '); do
		[ "$n" -gt 0 ] || continue
		tries=1
		until ask $((n + 1)) " times upon a time" && [ "${made:=0}" -eq $((n + 1)) ]; do
			tries=$((tries + 1))
			[ "$tries" -le 5 ] || die "ollama ends its texts early: $made tokens of $((n + 1))"
		done
		awk -v n="$n" -v ns="$made_ns" 'BEGIN { print "tg" n, n / ns * 1e9 }' >>"$scratch/peer"
	done
}

# --- pairs

# pair NAME COMMAND...: a run of drover and one of the peer
pair() {
	name=$1
	shift
	if [ $((number % 2)) -eq 1 ]; then
		run_drover && "$@"
	else
		"$@" && run_drover
	fi
	[ -s "$scratch/peer" ] || die "$name printed no speed"
	sort "$scratch/drover" >"$scratch/left"
	sort "$scratch/peer" >"$scratch/right"
	join "$scratch/left" "$scratch/right" >"$scratch/joined"
	[ -s "$scratch/joined" ] || die "$name ran no test that drover ran"
	while read -r test ours theirs; do
		echo "$name	$test	$ours	$theirs" >>"$scratch/pairs"
		say "$name, pair $number, $test: drover $ours, $name $theirs tokens/s"
	done <"$scratch/joined"
}

[ -z "$keep" ] || mkdir -p "$keep"
[ -z "$ollama" ] || start_ollama
printf %s "$llamas" >"$scratch/llamas"
number=1
while [ "$number" -le "$pairs" ]; do
	i=0
	while IFS= read -r peer; do
		i=$((i + 1)) name=llama-bench
		[ "$(wc -l <"$scratch/llamas")" -eq 1 ] || name=llama-bench-$i
		pair "$name" run_llama "$peer" "$name" </dev/null
	done <"$scratch/llamas"
	[ -z "$ollama" ] || pair ollama run_ollama
	number=$((number + 1))
done

awk -F '\t' -v model="$model" -v threads="${threads:-each its own choice of}" '
function median(list, n,    i, j, x) { # sorts list
	for (i = 2; i <= n; i++) {
		x = list[i]
		for (j = i - 1; j >= 1 && list[j] > x; j--) list[j + 1] = list[j]
		list[j + 1] = x
	}
	return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}
{
	key = $1 "\t" $2
	if (!(key in count)) order[++keys] = key
	n = ++count[key]
	ours[key, n] = $3 + 0
	theirs[key, n] = $4 + 0
}
END {
	printf "%s, %s threads\n\n", model, threads
	printf "| %-14s | %-8s | %5s | %12s | %12s | %24s |\n", "peer", "test", "pairs", "drover t/s", "peer t/s", "drover / peer (range)"
	print "| -------------- | -------- | ----: | -----------: | -----------: | -----------------------: |"
	for (k = 1; k <= keys; k++) {
		key = order[k]
		n = count[key]
		for (i = 1; i <= n; i++) {
			a[i] = ours[key, i]
			b[i] = theirs[key, i]
			r[i] = a[i] / b[i]
		}
		split(key, part, "\t")
		m = median(r, n)
		printf "| %-14s | %-8s | %5d | %12.2f | %12.2f | %24s |\n", part[1], part[2], n, median(a, n), median(b, n), sprintf("%.3f (%.3f to %.3f)", m, r[1], r[n])
	}
}' "$scratch/pairs"
