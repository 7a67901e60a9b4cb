package answers

import "math/big"

// surd is an exact number: a sum of rationals times √n and πᵏ. The zero surd is 0.
type surd map[part]*big.Rat

// part is √root · π^pi; root is square-free.
type part struct {
	root int64
	pi   int
}

// What a number may be at most; beyond it is compared as text.
const (
	maxParts = 8
	maxRoot  = 1e6 // before squares are taken out of it
	maxPi    = 64
	maxPower = 8 // of what is irrational
)

var one = part{root: 1}

func rational(r *big.Rat) surd {
	s := surd{}
	s.add(one, r)
	return s
}

// add adds one part, in place.
func (s surd) add(p part, r *big.Rat) {
	sum := new(big.Rat).Set(r)
	if old := s[p]; old != nil {
		sum.Add(sum, old)
	}
	if sum.Sign() == 0 {
		delete(s, p)
		return
	}
	s[p] = sum
}

// small says whether a result stays within the limits; where it does not, there is no value.
func (s surd) small() bool {
	if s == nil || len(s) > maxParts {
		return false
	}
	for p, r := range s {
		if p.root > maxRoot || p.pi > maxPi || p.pi < -maxPi || max(r.Num().BitLen(), r.Denom().BitLen()) > maxBits {
			return false
		}
	}
	return true
}

// checked is s, or nil where it is beyond the limits.
func (s surd) checked() surd {
	if s.small() {
		return s
	}
	return nil
}

func (s surd) plus(t surd) surd {
	out := surd{}
	for _, x := range []surd{s, t} {
		for p, r := range x {
			out.add(p, r)
		}
	}
	return out.checked()
}

func (s surd) negated() surd {
	out := surd{}
	for p, r := range s {
		out[p] = new(big.Rat).Neg(r)
	}
	return out
}

func (s surd) times(t surd) surd {
	out := surd{}
	for p, r := range s {
		for q, x := range t {
			outside, root, ok := squareFree(p.root, q.root)
			if !ok {
				return nil
			}
			product := new(big.Rat).Mul(r, x)
			out.add(part{root, p.pi + q.pi}, product.Mul(product, new(big.Rat).SetInt64(outside)))
		}
	}
	return out.checked()
}

// inverse is 1/s; nil for 0 and for a sum.
func (s surd) inverse() surd {
	for p, r := range s {
		if len(s) > 1 {
			return nil
		}
		// 1/(r·√n·πᵏ) = √n/(r·n)·π⁻ᵏ
		v := new(big.Rat).Mul(r, new(big.Rat).SetInt64(p.root))
		return surd{part{p.root, -p.pi}: v.Inv(v)}.checked()
	}
	return nil
}

func (s surd) power(n int) surd {
	if n < 0 {
		if s = s.inverse(); s == nil {
			return nil
		}
		n = -n
	}
	if r := s.rational(); r != nil {
		if r = raise(r, n); r == nil {
			return nil
		}
		return rational(r)
	}
	if n > maxPower {
		return nil
	}
	out := rational(big.NewRat(1, 1))
	for range n {
		if out = out.times(s); out == nil {
			return nil
		}
	}
	return out
}

// root is the n-th root of a rational: for n = 2 as a surd, else only where it is a rational itself.
func (s surd) root(n int) surd {
	r := s.rational()
	if r == nil || n < 2 || n > 64 || r.Sign() < 0 {
		return nil
	}
	if n == 2 {
		// √(a/b) = √(a·b)/b
		ab := new(big.Int).Mul(r.Num(), r.Denom())
		if whole := new(big.Int).Sqrt(ab); new(big.Int).Mul(whole, whole).Cmp(ab) == 0 {
			return rational(new(big.Rat).SetFrac(whole, r.Denom()))
		}
		if !ab.IsInt64() || ab.Int64() > maxRoot {
			return nil
		}
		outside, root := reduce(ab.Int64())
		return surd{part{root: root}: new(big.Rat).SetFrac(big.NewInt(outside), r.Denom())}
	}
	num, den := wholeRoot(r.Num(), n), wholeRoot(r.Denom(), n)
	if num == nil || den == nil {
		return nil
	}
	return rational(new(big.Rat).SetFrac(num, den))
}

// rational is s where it has no root and no π; else nil.
func (s surd) rational() *big.Rat {
	switch r := s[one]; {
	case s == nil:
		return nil
	case len(s) == 0:
		return new(big.Rat)
	case len(s) == 1 && r != nil:
		return r
	}
	return nil
}

func (s surd) equals(t surd) bool {
	if len(s) != len(t) {
		return false
	}
	for p, r := range s {
		if t[p] == nil || t[p].Cmp(r) != 0 {
			return false
		}
	}
	return true
}

// squareFree is √a·√b = outside·√root; false beyond the limit.
func squareFree(a, b int64) (outside, root int64, ok bool) {
	if a*b > maxRoot { // both are at most maxRoot
		return 0, 0, false
	}
	outside, root = reduce(a * b)
	return outside, root, true
}

// reduce takes the squares out of n: √n = outside·√root.
func reduce(n int64) (outside, root int64) {
	outside = 1
	for f := int64(2); f*f <= n; f++ {
		for n%(f*f) == 0 {
			n /= f * f
			outside *= f
		}
	}
	return outside, n
}

// wholeRoot is the whole n-th root of x ≥ 0; nil where it has none.
func wholeRoot(x *big.Int, n int) *big.Int {
	low, high := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(x.BitLen()/n+1))
	for low.Cmp(high) < 0 {
		mid := new(big.Int).Add(low, high)
		mid.Rsh(mid, 1)
		if new(big.Int).Exp(mid, big.NewInt(int64(n)), nil).Cmp(x) < 0 {
			low.Add(mid, big.NewInt(1))
		} else {
			high = mid
		}
	}
	if new(big.Int).Exp(low, big.NewInt(int64(n)), nil).Cmp(x) != 0 {
		return nil
	}
	return low
}
