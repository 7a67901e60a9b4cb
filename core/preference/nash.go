package preference

import (
	"math"
	"math/big"
)

// Nash returns a mixture that no choice beats: (Pπ)_i ≤ ½ for every i, the minimax winner. Where
// there are several, it is always the same one: the vertex that Bland's rule reaches first, which
// leans to lower indices.
//
// Preferences are rounded to multiples of 2⁻⁴⁰ and the linear program
//
//	max Σy  where  (P + 1)·y ≤ 1, y ≥ 0;  π = y/Σy
//
// is then solved exactly, in integers, by the simplex method: in floats, near-ties among measured
// preferences can end it far from the equilibrium. Adding 1 to each preference keeps the equilibria
// and makes the game's value positive; by the game's symmetry one program serves both players. The
// result's exploitability is below 1e-11.
//
// Cost: usually O(n) pivots of O(n²) products of up to 42·n bits.
func (t Table) Nash() []float64 {
	n := t.n
	// Row i < n is constraint i, row n the objective. Columns are y, then the slack variables, then
	// the right side. A basic variable's value is its row's right side over the common denominator.
	tableau := make([][]*big.Int, n+1)
	basis := make([]int, n)
	for i := range tableau {
		tableau[i] = make([]*big.Int, 2*n+1)
		for j := range tableau[i] {
			tableau[i][j] = new(big.Int)
		}
	}
	for i := range n {
		for j := range n {
			tableau[i][j].SetInt64(t.fixed(i, j) + one)
		}
		tableau[i][n+i].SetInt64(1)
		tableau[i][2*n].SetInt64(1)
		tableau[n][i].SetInt64(-1)
		basis[i] = n + i
	}
	denominator := big.NewInt(1)
	for column := entering(tableau[n]); column >= 0; column = entering(tableau[n]) {
		row := leaving(tableau[:n], basis, column)
		pivot(tableau, row, column, denominator)
		denominator.Set(tableau[row][column])
		basis[row] = column
	}
	sum := new(big.Int)
	for row, column := range basis {
		if column < n {
			sum.Add(sum, tableau[row][2*n])
		}
	}
	pi := make([]float64, n)
	for row, column := range basis {
		if column < n {
			pi[column], _ = new(big.Rat).SetFrac(tableau[row][2*n], sum).Float64()
		}
	}
	return pi
}

const one = 1 << 40 // 1 in fixed point

// fixed is P(i ≻ j) in fixed point, with fixed(i, j) + fixed(j, i) = one exactly.
func (t Table) fixed(i, j int) int64 {
	switch {
	case i == j:
		return one / 2
	case i < j:
		return one - t.fixed(j, i)
	}
	return int64(math.Round(t.p[i*t.n+j] * one))
}

// entering is the first column that still improves the objective; -1 at the optimum.
func entering(objective []*big.Int) int {
	for j, c := range objective[:len(objective)-1] {
		if c.Sign() < 0 {
			return j
		}
	}
	return -1
}

// leaving is the row whose limit right/row[column] is met first; of equal ones that of the lowest
// basic variable, which is what keeps the method from going round. There always is one, since every
// entry of P + 1 is positive.
func leaving(rows [][]*big.Int, basis []int, column int) int {
	best := -1
	var a, b big.Int
	for i, row := range rows {
		if row[column].Sign() <= 0 {
			continue
		}
		if best >= 0 {
			right := len(row) - 1
			a.Mul(row[right], rows[best][column])
			b.Mul(rows[best][right], row[column])
			if c := a.Cmp(&b); c > 0 || c == 0 && basis[i] > basis[best] {
				continue
			}
		}
		best = i
	}
	return best
}

// pivot brings the column's variable into the basis. All entries are minors of the first tableau,
// so the division by the last pivot, the denominator, leaves no remainder.
//
// Source: Bareiss 1968, Mathematics of Computation 22, the one-step division-free elimination.
func pivot(tableau [][]*big.Int, row, column int, denominator *big.Int) {
	p := tableau[row]
	var product, f big.Int
	for i, r := range tableau {
		if i == row {
			continue
		}
		f.Set(r[column])
		for j, v := range r {
			v.Mul(v, p[column])
			v.Sub(v, product.Mul(&f, p[j]))
			v.Quo(v, denominator)
		}
	}
}
