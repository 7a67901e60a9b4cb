package telemetry

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// Progress shows how far a stage is: on a terminal as one live line with the rate and the time
// left, elsewhere as a line at its start and one at its end. It is safe for concurrent use.
type Progress struct {
	log Logger
	now func() time.Time

	mu      sync.Mutex
	stage   string
	total   int
	done    int
	before  int       // of done: what an earlier process did
	started time.Time // carries the monotonic clock: a changed wall clock changes no figure
	drawn   time.Time
}

// NewProgress returns a progress that writes where the logger does.
func NewProgress(log Logger) *Progress { return &Progress{log: log, now: time.Now} }

// redrawEvery keeps a live line readable and its cost small.
const redrawEvery = 100 * time.Millisecond

// Start begins a stage of total things to do; 0 means that it is not known how many.
func (p *Progress) Start(stage string, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stage, p.total, p.done, p.before = stage, total, 0, 0
	p.started = p.now()
	if p.log.live() {
		p.draw(p.started)
		return
	}
	p.log.Info("started", Stage.Of(stage), Total.Of(total))
}

// Already says that n things were done before the start: they tell nothing of the rate.
func (p *Progress) Already(n int) {
	p.mu.Lock()
	p.before += n
	p.mu.Unlock()
	p.Add(n)
}

// Add says that n more things are done.
func (p *Progress) Add(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if now := p.now(); p.log.live() && now.Sub(p.drawn) >= redrawEvery {
		p.draw(now)
	}
}

// Done ends the stage, however much of it is done.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stage == "" {
		return
	}
	if p.log.live() {
		p.log.sink.setLive("")
	}
	seconds := math.Round(p.now().Sub(p.started).Seconds()*10) / 10
	fields := []Field{Stage.Of(p.stage), Count.Of(p.done)}
	if !p.log.live() || p.done != p.total {
		fields = append(fields, Total.Of(p.total)) // a person on a terminal has seen it already
	}
	fields = append(fields, Seconds.Of(seconds))
	p.log.Info("done", fields...)
	p.stage = ""
}

func (p *Progress) draw(now time.Time) {
	p.drawn = now
	p.log.sink.setLive(p.line(now.Sub(p.started)))
}

// line is the live line after some time. The time left is that of the mean rate since the start;
// below one thing and two seconds nothing is known, and nothing is said.
func (p *Progress) line(elapsed time.Duration) string {
	text := fmt.Sprintf("%s %d", p.stage, p.done)
	if p.total > 0 {
		text += fmt.Sprintf("/%d (%d %%)", p.total, 100*p.done/p.total)
	}
	text += " " + short(elapsed)
	fresh := p.done - p.before
	if fresh == 0 || elapsed < 2*time.Second {
		return text
	}
	rate := float64(fresh) / elapsed.Seconds()
	text += ", " + perTime(rate)
	if p.total > p.done {
		left := time.Duration(float64(p.total-p.done) / rate * float64(time.Second))
		text += ", about " + short(left) + " left"
	}
	return text
}

// perTime is a rate with the unit that makes it at least 1, if one does.
func perTime(perSecond float64) string {
	switch {
	case perSecond >= 1:
		return fmt.Sprintf("%.1f/s", perSecond)
	case perSecond*60 >= 1:
		return fmt.Sprintf("%.1f/min", perSecond*60)
	}
	return fmt.Sprintf("%.1f/h", perSecond*3600)
}

// short is a duration in its two greatest units.
func short(d time.Duration) string {
	s := int(d.Round(time.Second).Seconds())
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
}
