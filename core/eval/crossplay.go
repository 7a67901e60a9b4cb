package eval

import (
	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/sdk"
)

// CrossPlay is the matrix of who wins against whom among n policies: the checkpoints of a run, and
// a baseline.
//
// That each policy beats its parent does not make the last one the best: preferences may go in
// circles. The matrix shows it, its Nash mixture says which policies nobody can do without, and the
// exploitabilities by how much each one can be beaten.
type CrossPlay struct {
	Names []string   `json:"names"`
	Cells []Interval `json:"cells"` // n×n, row-major: the row's win rate against the column; N = 0: not measured
}

// NewCrossPlay returns the matrix of the named policies with nothing measured. Everybody ties with
// itself.
func NewCrossPlay(names []string) CrossPlay {
	n := len(names)
	c := CrossPlay{Names: append([]string(nil), names...), Cells: make([]Interval, n*n)}
	for i := range c.Cells {
		c.Cells[i] = unknown()
	}
	for i := range n {
		c.Cells[i*n+i] = Interval{Mean: 0.5, Low: 0.5, High: 0.5}
	}
	return c
}

// At returns the row's win rate against the column.
func (c CrossPlay) At(row, column int) Interval { return c.Cells[row*len(c.Names)+column] }

// Set records the row's win rate against the column, and the column's against the row, which is one
// minus it.
//
// Errors: sdk.CodeInternal for policies that do not exist, or a policy against itself.
func (c CrossPlay) Set(row, column int, rate Interval) error {
	n := len(c.Names)
	if row < 0 || column < 0 || row >= n || column >= n || row == column {
		return sdk.Errorf(sdk.CodeInternal, "cross-play of %d policies: no game of %d against %d", n, row, column)
	}
	c.Cells[row*n+column] = rate
	c.Cells[column*n+row] = Interval{Mean: 1 - rate.Mean, SE: rate.SE, Low: 1 - rate.High, High: 1 - rate.Low, N: rate.N}
	return nil
}

// Equilibrium is the Nash mixture over the policies of a cross-play matrix, and by how much the
// best of them beats each one: max_i P(i ≻ j) − ½, in [0, ½]. Both are of the measured means and
// inherit their noise; policies outside the matrix might exploit more.
type Equilibrium struct {
	Mixture        []float64 `json:"mixture"`
	Exploitability []float64 `json:"exploitability"`
}

// Equilibrium returns the matrix's equilibrium.
//
// Errors: sdk.CodeUsage, naming the two policies, where a game was not measured.
func (c CrossPlay) Equilibrium() (Equilibrium, error) {
	n := len(c.Names)
	p := make([]float64, n*n)
	for i, cell := range c.Cells {
		if i/n != i%n && cell.N == 0 {
			return Equilibrium{}, sdk.Errorf(sdk.CodeUsage, "equilibrium of the cross-play matrix: %s against %s was not measured", c.Names[i/n], c.Names[i%n])
		}
		p[i] = cell.Mean
	}
	table, err := preference.NewTable(p, n)
	if err != nil {
		return Equilibrium{}, err
	}
	e := Equilibrium{Mixture: table.Nash()}
	for i := range n {
		alone := make([]float64, n)
		alone[i] = 1
		x, err := table.Exploitability(alone)
		if err != nil {
			return Equilibrium{}, err
		}
		e.Exploitability = append(e.Exploitability, x)
	}
	return e, nil
}
