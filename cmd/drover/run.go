package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"drover/internal/bench"
	"drover/internal/chat"
	"drover/internal/engine"
	"drover/internal/sample"
	"drover/internal/sched"
)

func runCommand() *cli.Command {
	d := sample.Defaults()
	file := stringFlag(catPrompt, "", "file", "", "prompt from `FILE` (-: the standard input)", "f")
	file.TakesFile = true
	flags := []cli.Flag{
		stringFlag(catPrompt, "", "prompt", "", "the prompt", "p"),
		file,
		stringFlag(catPrompt, "", "tokens", "", "token ids `1,2,3` instead of text, used exactly"),
		stringFlag(catPrompt, "", "system", "", "system message"),
		boolFlag(catPrompt, "", "raw", false, "continue the prompt: no chat template"),
		intFlag(catSample, "", "predict", -1, "most tokens to generate (-1: to the end)", "n"),
		&cli.StringSliceFlag{Category: catSample, Name: "stop", EnvVars: envVars("", "stop"), Usage: "end the text before `TEXT`; may be repeated"},
		boolFlag(catSample, "", "ignore-eos", false, "end tokens do not stop"),
		&cli.Int64Flag{Category: catSample, Name: "seed", Aliases: []string{"s"}, EnvVars: envVars("", "seed"), Value: -1, Usage: "random seed (-1: another each time)"},
		floatFlag(catSample, "", "temp", d.Temp, "temperature (0: greedy)"),
		intFlag(catSample, "", "top-k", d.TopK, "keep the k likeliest tokens (0: all)"),
		floatFlag(catSample, "", "top-p", d.TopP, "keep the likeliest tokens of this probability (1: all)"),
		floatFlag(catSample, "", "min-p", d.MinP, "keep what has this share of the likeliest one's probability (0: all)"),
		floatFlag(catSample, "", "typical", d.Typical, "locally typical sampling (1: off)"),
		floatFlag(catSample, "", "repeat-penalty", d.RepeatPenalty, "penalty on repeated tokens (1: off)"),
		intFlag(catSample, "", "repeat-last-n", d.RepeatLastN, "tokens that the penalties look back (0: off, -1: all)"),
		floatFlag(catSample, "", "presence-penalty", d.Presence, "penalty on tokens that were there (0: off)"),
		floatFlag(catSample, "", "frequency-penalty", d.Frequency, "penalty for each time that a token was there (0: off)"),
	}
	return &cli.Command{
		Name:      "run",
		Usage:     "answer a prompt, or chat on a terminal",
		UsageText: "drover run [flags] [PROMPT]",
		Description: "Without a prompt: a chat on a terminal, else the standard input is the prompt.\n" +
			"The model's chat template is applied to PROMPT; the demo model continues it.",
		Flags:  append(flags, sessionFlags(0)...),
		Action: run,
	}
}

// answering is what run's flags say about generating.
type answering struct {
	params    sample.Params
	predict   int
	stops     []string
	ignoreEOS bool
}

func readAnswering(c *cli.Context) (answering, error) {
	a := answering{predict: c.Int("predict"), stops: c.StringSlice("stop"), ignoreEOS: c.Bool("ignore-eos"), params: sample.Params{
		Temp: c.Float64("temp"), TopK: c.Int("top-k"), TopP: c.Float64("top-p"), MinP: c.Float64("min-p"), Typical: c.Float64("typical"),
		RepeatPenalty: c.Float64("repeat-penalty"), RepeatLastN: c.Int("repeat-last-n"),
		Presence: c.Float64("presence-penalty"), Frequency: c.Float64("frequency-penalty"),
	}}
	if seed := c.Int64("seed"); seed < -1 {
		return a, usageError("-1 takes another seed each time", "flag --seed: %d is not a seed", seed)
	} else if seed >= 0 {
		a.params.Seed = uint64(seed)
	} else {
		a.params.Seed = rand.Uint64N(1 << 62)
	}
	if a.predict < -1 {
		return a, usageError("-1 generates to the end", "flag --predict: %d is not a number of tokens", a.predict)
	}
	for _, s := range a.stops {
		if s == "" {
			return a, usageError("--stop TEXT", "flag --stop: an empty text stops everything")
		}
	}
	if err := a.params.Validate(); err != nil {
		return a, usageError(helpHint(c.Command), "flag --%w", err)
	}
	return a, nil
}

func run(c *cli.Context) (err error) {
	a, err := readAnswering(c)
	if err != nil {
		return err
	}
	src, err := readSource(c)
	if err != nil {
		return err
	}
	s, err := openSession(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	idsOnly := src.ids != nil && wantJSON(c) && len(a.stops) == 0
	if _, err := s.vocab(); err != nil && !(errors.Is(err, errNoVocab) && idsOnly) {
		return err
	}
	if src.chat {
		return s.chat(c, a)
	}
	p, err := s.prompt(c, src)
	if err != nil {
		return err
	}
	limit := c.Int("ctx-size")
	if limit == 0 {
		limit = s.file.Model.Config.Context
	}
	if err := checkLength(len(p.ids), limit); err != nil {
		return err
	}
	if err := s.start(c, c.Int("ctx-size")); err != nil {
		return err
	}
	return s.answer(c, a, p)
}

// checkLength is the error of a prompt that is longer than the context, before
// a large model is loaded for nothing.
func checkLength(tokens, context int) error {
	if tokens > context {
		return &engine.ContextError{Tokens: tokens, Context: context}
	}
	return nil
}

// request is the engine's request for a prompt.
func (s *session) request(a answering, p prompt) engine.Request {
	r := engine.Request{Tokens: p.ids, Max: a.predict, Sampler: sample.New(a.params), Stop: a.stops}
	if s.tokens != nil {
		r.Stream = s.tokens.NewStream()
	}
	if !a.ignoreEOS {
		r.IsEnd, r.Stop = p.isEnd, append(p.stops[:len(p.stops):len(p.stops)], a.stops...)
	}
	return r
}

// answer generates once and writes the text as it comes, or the JSON object at
// the end. An interrupted answer keeps what was written.
func (s *session) answer(c *cli.Context, a answering, p prompt) error {
	w := &answerWriter{w: c.App.Writer}
	if wantJSON(c) {
		w.w = io.Discard
	} else if p.echo != "" && isTerminal(c.App.Writer) && isTerminal(c.App.ErrWriter) {
		fmt.Fprint(c.App.ErrWriter, p.echo) // the text that is continued
	}
	before := s.engine.Stats()
	result, err := s.engine.Generate(c.Context, s.request(a, p), func(_ int32, text string) error { return w.write(text) })
	if !wantJSON(c) && (err == nil || w.last != "") {
		if endErr := w.end(); err == nil {
			err = endErr
		}
	}
	if err == nil {
		s.told(result, before)
	}
	switch {
	case !wantJSON(c):
		return err
	case err != nil && c.Context.Err() != nil:
		f := *classify(context.Canceled)
		f.partly = map[string]any{"tokens": list(result.Tokens), "text": result.Text}
		return &f
	case err != nil:
		return err
	}
	return writeJSON(c.App.Writer, s.document(p, result))
}

// told says on stderr what the text itself does not.
func (s *session) told(r engine.Result, before engine.Stats) {
	if r.ContextEnd {
		fmt.Fprintf(s.notes, "the context of %d positions is full\n", s.engine.Context())
	}
	o := s.outcome(r, before)
	if s.verbose {
		o.write(s.notes)
	}
	s.learn(o)
}

// runDoc is run's JSON object.
type runDoc struct {
	Schema       int         `json:"schema"`
	Model        modelDoc    `json:"model"`
	Plan         *sched.Plan `json:"plan"`
	PromptTokens []int32     `json:"prompt_tokens"`
	Tokens       []int32     `json:"tokens"`
	Text         string      `json:"text"`
	Stop         string      `json:"stop"`
	Timings      timings     `json:"timings"`
}

// timings is where the time went. Rates are 0 where there was nothing to time.
type timings struct {
	LoadMS         float64  `json:"load_ms"`
	PromptMS       float64  `json:"prompt_ms"`
	PromptRate     float64  `json:"prompt_tokens_per_s"`
	DecodeMS       float64  `json:"decode_ms"`
	DecodeRate     float64  `json:"decode_tokens_per_s"`
	BandwidthShare *float64 `json:"bandwidth_share"` // of decoding; null where the device was not measured, as --verbose does
}

func (s *session) document(p prompt, r engine.Result) runDoc {
	return runDoc{Schema: 1, Model: describeModel(s.file), Plan: s.placer.current(), PromptTokens: list(p.ids),
		Tokens: list(r.Tokens), Text: r.Text, Stop: r.Stop, Timings: s.timings(r)}
}

func (s *session) timings(r engine.Result) timings {
	ms := func(seconds float64) float64 { return 1000 * seconds }
	t := timings{LoadMS: ms(s.load.Seconds()), PromptMS: ms(r.Timings.Prompt.Seconds()), DecodeMS: ms(r.Timings.Decode.Seconds())}
	if seconds := r.Timings.Prompt.Seconds(); seconds > 0 {
		t.PromptRate = float64(r.PromptTokens-r.Reused) / seconds
	}
	steps := len(r.Tokens) - 1
	seconds := r.Timings.Decode.Seconds()
	if steps < 1 || seconds <= 0 {
		return t
	}
	t.DecodeRate = float64(steps) / seconds
	if stages := s.placer.current().Stages; len(stages) == 1 {
		if known := s.machine.speeds.known[stages[0].Device]; known != nil && !known.guessed {
			middle := r.PromptTokens + steps/2
			share := t.DecodeRate * float64(bench.DecodeBytes(s.file.Model, middle, s.compute.K, s.compute.V)) / known.Rates.Read
			t.BandwidthShare = &share
		}
	}
	return t
}

// answerWriter writes an answer and sees to it that it ends with a newline.
type answerWriter struct {
	w    io.Writer
	last string
}

func (a *answerWriter) write(text string) error {
	if text == "" {
		return nil
	}
	a.last = text
	if _, err := io.WriteString(a.w, text); err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	return nil
}

func (a *answerWriter) end() error {
	if strings.HasSuffix(a.last, "\n") {
		return nil
	}
	return a.write("\n")
}

// chat talks on the terminal until the person leaves.
func (s *session) chat(c *cli.Context, a answering) error {
	f, raw := s.format()
	if raw = raw || c.Bool("raw"); raw {
		fmt.Fprintln(s.notes, "every line is continued by itself: there is no conversation without a chat template")
	}
	if err := s.start(c, c.Int("ctx-size")); err != nil {
		return err
	}
	interrupt, stop := interrupts()
	defer stop()
	loop := &chatLoop{
		lines:     newEditor(c.App.Reader.(*os.File), c.App.Writer.(*os.File), ">>> "),
		notes:     s.notes,
		interrupt: interrupt,
		messages:  systemMessage(c.String("system")),
		answer: func(ctx context.Context, messages []chat.Message) (string, error) {
			if raw {
				last := messages[len(messages)-1].Content
				return s.turn(ctx, c.App.Writer, a, prompt{ids: s.tokens.Encode(last, true, true), isEnd: s.tokens.EndOfGeneration})
			}
			return s.turn(ctx, c.App.Writer, a, s.render(f, messages))
		},
	}
	fmt.Fprintln(s.notes, "/help lists the commands, Ctrl-D leaves")
	// Ctrl-C ends answers here, not the process
	return loop.run(context.WithoutCancel(c.Context))
}

// turn writes one answer of a chat and gives its text, without the space that
// many models begin with.
func (s *session) turn(ctx context.Context, out io.Writer, a answering, p prompt) (string, error) {
	if len(p.ids) >= s.engine.Context() {
		return "", errFull
	}
	w := &answerWriter{w: out}
	before := s.engine.Stats()
	result, err := s.engine.Generate(ctx, s.request(a, p), func(_ int32, text string) error {
		if w.last == "" {
			text = strings.TrimLeft(text, " \n")
		}
		return w.write(text)
	})
	if w.last != "" {
		err = errors.Join(err, w.end())
	}
	if err == nil {
		s.told(result, before)
	}
	return strings.TrimSpace(result.Text), err
}
