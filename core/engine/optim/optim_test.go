package optim

import (
	"errors"
	"math"
	"reflect"
	"runtime"
	"testing"
)

func newAdamW(t *testing.T, params ...Param) *AdamW {
	t.Helper()
	o, err := NewAdamW(params)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func step(t *testing.T, o *AdamW, lr float64) float64 {
	t.Helper()
	norm, err := o.Step(lr)
	if err != nil {
		t.Fatal(err)
	}
	return norm
}

func near(t *testing.T, what string, got, want, tol float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tol) {
		t.Errorf("%s = %.9g, want %.9g", what, got, want)
	}
}

// Two steps of one weight, by hand. lr 0.1, β 0.9 and 0.5, eps 0.01, decay 0.1.
//
//	step 1, g = 2:   m = 0.1·2 = 0.2,            m̂ = 0.2/0.1 = 2
//	                 v = 0.5·4 = 2,              v̂ = 2/0.5 = 4
//	                 w = 1·(1−0.01) − 0.1·2/(2+0.01) = 0.99 − 0.2/2.01 = 0.8904975
//	step 2, g = −1:  m = 0.9·0.2 − 0.1 = 0.08,   m̂ = 0.08/0.19 = 0.4210526
//	                 v = 0.5·2 + 0.5·1 = 1.5,    v̂ = 1.5/0.75 = 2
//	                 w = 0.8904975·0.99 − 0.1·0.4210526/(1.4142136+0.01) = 0.8815925 − 0.0295639 = 0.8520286
func TestStepByHand(t *testing.T) {
	p := Param{Name: "w", W: []float32{1}, Grad: []float32{2}, Decay: true}
	o := newAdamW(t, p)
	o.Beta1, o.Beta2, o.Eps, o.WeightDecay = 0.9, 0.5, 0.01, 0.1
	near(t, "norm", step(t, o, 0.1), 2, 0)
	near(t, "w after step 1", float64(p.W[0]), 0.8904975, 1e-7)
	if p.Grad[0] != 0 {
		t.Errorf("the gradient is %v after a step, want 0", p.Grad[0])
	}
	p.Grad[0] = -1
	near(t, "norm", step(t, o, 0.1), 1, 0)
	near(t, "w after step 2", float64(p.W[0]), 0.8520286, 1e-7)
}

// Gradients (3, 0) and (4): the norm is 5, Clip 1 scales by 1/(5+1e-6). The first moment, 0.1·g·scale, shows the scale;
// the weights do not, since the first step of Adam is lr whatever the gradient.
func TestClippingTakesOneNormOverAllParameters(t *testing.T) {
	tests := map[string]struct{ clip, scale float64 }{
		"a norm above the clip is scaled to it": {1, 1 / (5 + 1e-6)},
		"a norm below the clip stays":           {10, 1},
		"without a clip the norm stays":         {0, 1},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			a := Param{Name: "a", W: []float32{0, 0}, Grad: []float32{3, 0}}
			b := Param{Name: "b", W: []float32{0}, Grad: []float32{4}}
			frozen := Param{Name: "c", W: []float32{7}, Grad: []float32{1e9}, Frozen: true}
			o := newAdamW(t, a, frozen, b)
			o.Clip = c.clip
			near(t, "norm", step(t, o, 0.001), 5, 1e-12)
			s := o.State()
			near(t, "m of a", float64(s.Moments[0].M[0]), 0.1*3*c.scale, 1e-7)
			near(t, "m of b", float64(s.Moments[1].M[0]), 0.1*4*c.scale, 1e-7)
			if frozen.W[0] != 7 {
				t.Errorf("a frozen weight became %v", frozen.W[0])
			}
		})
	}
}

// With a gradient of 0 only the decay moves a weight: by lr·0.01 of itself, and only where Decay is set.
func TestDecayIsPerParameter(t *testing.T) {
	matrix := Param{Name: "matrix", W: []float32{2}, Grad: []float32{0}, Decay: true}
	norm := Param{Name: "norm", W: []float32{2}, Grad: []float32{0}}
	step(t, newAdamW(t, matrix, norm), 0.5)
	near(t, "matrix", float64(matrix.W[0]), 2*(1-0.5*0.01), 1e-7)
	near(t, "norm", float64(norm.W[0]), 2, 0)
}

func TestGradientsThatAreNotFiniteChangeNothing(t *testing.T) {
	for name, bad := range map[string]float32{"NaN": float32(math.NaN()), "infinity": float32(math.Inf(-1))} {
		t.Run(name, func(t *testing.T) {
			a := Param{Name: "a", W: []float32{1}, Grad: []float32{1}, Decay: true}
			b := Param{Name: "b", W: []float32{1, 2}, Grad: []float32{0, bad}, Decay: true}
			o := newAdamW(t, a, b)
			before := o.State()
			_, err := o.Step(0.1)
			if !errors.Is(err, ErrNotFinite) {
				t.Fatalf("error %v, want ErrNotFinite", err)
			}
			if a.W[0] != 1 || b.W[0] != 1 || b.W[1] != 2 || a.Grad[0] != 1 || !reflect.DeepEqual(o.State(), before) {
				t.Error("something has changed")
			}
			o.ZeroGrad()
			near(t, "norm after ZeroGrad", step(t, o, 0.1), 0, 0)
		})
	}
}

// 3e38² is beyond float32 but the norm is summed in float64: sqrt(2)·3e38.
func TestNormOfHugeGradientsIsFinite(t *testing.T) {
	o := newAdamW(t, Param{Name: "w", W: []float32{1, 1}, Grad: []float32{3e38, 3e38}})
	o.Clip = 1
	near(t, "norm / 3e38", step(t, o, 0.1)/3e38, math.Sqrt2, 1e-6)
}

func TestLearningRateMustBeANumber(t *testing.T) {
	for _, lr := range []float64{math.NaN(), math.Inf(1), -1e-9} {
		p := Param{Name: "w", W: []float32{1}, Grad: []float32{1}}
		if _, err := newAdamW(t, p).Step(lr); err == nil || p.W[0] != 1 {
			t.Errorf("lr %v: error %v, weight %v", lr, err, p.W[0])
		}
	}
}

func TestNewAdamWRefuses(t *testing.T) {
	tests := map[string][]Param{
		"two parameters of one name":         {{Name: "w"}, {Name: "w"}},
		"a gradient of another length":       {{Name: "w", W: make([]float32, 2), Grad: make([]float32, 3)}},
		"a missing gradient":                 {{Name: "w", W: make([]float32, 2)}},
		"a frozen one of another one's name": {{Name: "w", Frozen: true}, {Name: "w"}},
	}
	for name, params := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := NewAdamW(params); err == nil {
				t.Error("no error")
			}
		})
	}
}

// twoTensors is a model with a gradient that depends on the step, large enough to be updated by several threads.
func twoTensors() []Param {
	return []Param{
		{Name: "a", W: make([]float32, 70001), Grad: make([]float32, 70001), Decay: true},
		{Name: "b", W: make([]float32, 33), Grad: make([]float32, 33)},
	}
}

func train(t *testing.T, o *AdamW, params []Param, from, to int) {
	for s := from; s < to; s++ {
		for _, p := range params {
			for i := range p.Grad {
				p.Grad[i] = float32(math.Sin(float64(s*len(p.Grad) + i)))
			}
		}
		step(t, o, 0.01)
	}
}

func TestResumedStepsAreTheSameBytes(t *testing.T) {
	whole := twoTensors()
	o := newAdamW(t, whole...)
	train(t, o, whole, 0, 6)

	for _, threads := range []int{1, 2, 7} {
		old := runtime.GOMAXPROCS(threads)
		params := twoTensors() // they are in both optimizers, as weights come from a checkpoint
		first := newAdamW(t, params...)
		train(t, first, params, 0, 3)
		state := first.State()
		state.Moments[0], state.Moments[1] = state.Moments[1], state.Moments[0] // the order does not matter

		second := newAdamW(t, params...)
		if err := second.SetState(state); err != nil {
			t.Fatal(err)
		}
		clear(state.Moments[0].M) // the optimizer has its own copy
		train(t, second, params, 3, 6)
		for i := range whole {
			if !reflect.DeepEqual(params[i].W, whole[i].W) {
				t.Errorf("%d threads: %q differs from the run that did not stop", threads, whole[i].Name)
			}
		}
		if !reflect.DeepEqual(second.State(), o.State()) {
			t.Errorf("%d threads: the state differs from that of the run that did not stop", threads)
		}
		runtime.GOMAXPROCS(old)
	}
}

func TestSetStateRefusesAnotherModelsState(t *testing.T) {
	good := newAdamW(t, twoTensors()...).State()
	tests := map[string]func(s *State){
		"a parameter missing":  func(s *State) { s.Moments = s.Moments[:1] },
		"another name":         func(s *State) { s.Moments[1].Name = "c" },
		"the same name twice":  func(s *State) { s.Moments[1] = s.Moments[0] },
		"another length of m":  func(s *State) { s.Moments[1].M = s.Moments[1].M[:5] },
		"no v":                 func(s *State) { s.Moments[1].V = nil },
		"a negative step":      func(s *State) { s.Step = -1 },
		"one parameter extra":  func(s *State) { s.Moments = append(s.Moments, Moments{Name: "c"}) },
		"nothing but the step": func(s *State) { s.Moments = nil },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			params := twoTensors()
			o := newAdamW(t, params...)
			train(t, o, params, 0, 1)
			before := o.State()
			s := State{Step: 5, Moments: append([]Moments(nil), good.Moments...)}
			spoil(&s)
			if err := o.SetState(s); err == nil {
				t.Error("no error")
			}
			if !reflect.DeepEqual(o.State(), before) {
				t.Error("the state has changed")
			}
		})
	}
}
