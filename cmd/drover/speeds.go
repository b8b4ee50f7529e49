package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"drover/backend"
	"drover/internal/quant"
	"drover/internal/rates"
)

// speeds knows how fast devices are: from earlier, or by measuring them.
type speeds struct {
	store   *rates.Store
	threads int  // of the CPU; 0: one a core
	raw     bool // the CPU computes from weights as they lie in the file
	notes   io.Writer
	verbose bool

	known map[string]*speed // by ID
	told  bool              // that the store cannot be used
}

// speed is what is known of a device.
type speed struct {
	rates.Entry
	key     rates.Key
	guessed bool // not measured: nothing is learnt from runs
}

func newSpeeds(o compute, notes io.Writer, verbose bool) *speeds {
	return &speeds{store: rates.Open(rates.Dir()), threads: o.Threads, raw: o.NoRepack, notes: notes, verbose: verbose, known: map[string]*speed{}}
}

func (s *speeds) key(d backend.Device, i backend.Info) rates.Key {
	threads := s.threads
	if threads == 0 {
		threads = min(i.Cores, runtime.GOMAXPROCS(0))
	}
	return rates.KeyOf(i, d.Sensors(), threads, s.raw)
}

// of is what is known of a device; where that is nothing it is measured if must
// says so, and the answer is nil otherwise. A software device's time says nothing
// of a real one: it is guessed. Errors: ctx's, backend.ErrLost.
func (s *speeds) of(ctx context.Context, d backend.Device, i backend.Info, must bool) (*speed, error) {
	if known := s.known[i.ID]; known != nil {
		return known, nil
	}
	if i.Simulated && must {
		return s.guess(i, "its speed is guessed: it is a software device"), nil
	} else if i.Simulated {
		return nil, nil
	}
	key := s.key(d, i)
	e, err := s.store.Load(key)
	if err == nil {
		s.known[i.ID] = &speed{Entry: *e, key: key}
		return s.known[i.ID], nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.unusable(err)
	}
	if !must {
		return nil, nil
	}
	fmt.Fprintf(s.notes, "%s: measuring its speed, about a second; it is kept for later plans\n", i.ID)
	r, err := d.Measure(ctx)
	switch {
	case err == nil:
		return s.measured(key, i.ID, r), nil
	case ctx.Err() != nil, errors.Is(err, backend.ErrLost):
		return nil, fmt.Errorf("measure %s: %w", i.ID, err)
	}
	fmt.Fprintf(s.notes, "%s: its speed is guessed, it cannot be measured: %v\n", i.ID, err)
	return s.guess(i, ""), nil
}

// time times layers like a model's in formats that were not timed, and keeps that.
// Errors: ctx's, backend.ErrLost; another leaves the speed as it is known.
func (s *speeds) time(ctx context.Context, d backend.Device, known *speed, m *backend.Model) error {
	if known == nil || known.guessed {
		return nil
	}
	id := d.Info().ID
	// keep takes what was timed, unless that failed or there was no room
	keep := func(t quant.Type, err error, add func(r *backend.Rates)) error {
		switch {
		case ctx.Err() != nil, errors.Is(err, backend.ErrLost):
			return fmt.Errorf("measure %s: %w", id, err)
		case errors.Is(err, backend.ErrMemory):
			return nil
		case err != nil:
			fmt.Fprintf(s.notes, "%s: %v\n", id, err)
			return nil
		}
		if e, err := s.store.Load(known.key); err == nil {
			known.Entry = *e
		}
		add(&known.Rates)
		delete(known.Speed, t) // it was learnt against other times
		if err := s.store.Save(known.key, &known.Entry); err != nil {
			s.unusable(err)
		}
		return nil
	}
	formats := slices.DeleteFunc(rates.Formats(m), func(t quant.Type) bool { return known.Rates.Layers[t] != nil })
	if len(formats) > 0 {
		fmt.Fprintf(s.notes, "%s: timing layers in %s, some seconds; it is kept for later plans\n", id, inWords(formats))
	}
	for _, t := range formats {
		times, err := rates.Layers(ctx, d, t)
		if err == nil && len(times) == 0 {
			continue // no room for them
		}
		err = keep(t, err, func(r *backend.Rates) {
			if r.Layers == nil {
				r.Layers = map[quant.Type][]backend.LayerTime{}
			}
			r.Layers[t] = times
		})
		if err != nil {
			return err
		}
	}
	formats = slices.DeleteFunc(rates.ExpertFormats(m), func(t quant.Type) bool { return known.Rates.Mixture(&m.Config, t) != nil })
	if len(formats) > 0 {
		fmt.Fprintf(s.notes, "%s: timing layers of experts like this model's in %s, some seconds; it is kept for later plans\n", id, inWords(formats))
	}
	for _, t := range formats {
		mixture, err := rates.Mixture(ctx, d, t, &m.Config)
		if err := keep(t, err, func(r *backend.Rates) { r.Mixtures = append(r.Mixtures, mixture) }); err != nil {
			return err
		}
	}
	return nil
}

func inWords(formats []quant.Type) string {
	var all []string
	for _, t := range formats {
		all = append(all, t.String())
	}
	return strings.Join(all, ", ")
}

// measured keeps new rates; what runs showed of the old ones does not count.
func (s *speeds) measured(key rates.Key, id string, r backend.Rates) *speed {
	e := rates.Entry{Rates: r}
	if err := s.store.Save(key, &e); err != nil {
		s.unusable(err)
	}
	s.known[id] = &speed{Entry: e, key: key}
	return s.known[id]
}

// learn keeps what a run has shown. What another process has learnt meanwhile counts.
func (s *speeds) learn(known *speed, r rates.Run) {
	if e, err := s.store.Load(known.key); err == nil {
		known.Entry = *e
	}
	if known.Learn(r) {
		if err := s.store.Save(known.key, &known.Entry); err != nil {
			s.unusable(err)
		}
	}
}

func (s *speeds) guess(i backend.Info, why string) *speed {
	if why != "" && s.verbose {
		fmt.Fprintf(s.notes, "%s: %s\n", i.ID, why)
	}
	s.known[i.ID] = &speed{Entry: rates.Entry{Rates: rates.Guess(i)}, guessed: true}
	return s.known[i.ID]
}

// unusable says once, to who wants to know, that rates are not kept.
func (s *speeds) unusable(err error) {
	if s.verbose && !s.told {
		fmt.Fprintf(s.notes, "measured speeds are not kept: %v\n", err)
	}
	s.told = true
}
