package kernel

import "math"

// RMSNorm normalises each of the rows of x (rows×d) by its root mean square:
//
//	rstd[r] = 1 / sqrt(mean(x[r]²) + eps),  y[r,j] = x[r,j] · rstd[r] · w[j]
//
// y may be x. rstd (length rows) is what [RMSNormBackward] needs.
//
// Source: Zhang and Sennrich 2019 (arXiv 1910.07467), Eq. 4, with eps under the root.
func RMSNorm(y, rstd, x, w []float32, rows, d int, eps float32) {
	if rows <= 0 || d <= 0 {
		return
	}
	y, rstd, x, w = y[:rows*d], rstd[:rows], x[:rows*d], w[:d]
	if rows*d < 2*grain {
		rmsNorm(y, rstd, x, w, rows, d, eps)
		return
	}
	step := max(1, grain/d)
	Parallel((rows+step-1)/step, func(t int) {
		r0, r1 := t*step, min(rows, (t+1)*step)
		rmsNorm(y[r0*d:], rstd[r0:], x[r0*d:], w, r1-r0, d, eps)
	})
}

// normChunk is the number of rows whose share of dw is summed before it is added to the others' shares.
const normChunk = 64

// RMSNormBackward is the derivative of [RMSNorm] for the gradient dy, with x̂ = x·rstd:
//
//	dx[r,j] (=|+=) rstd[r] · (dy[r,j]·w[j] − x̂[r,j]·mean_i(dy[r,i]·w[i]·x̂[r,i])),  dw[j] += Σ_r dy[r,j]·x̂[r,j]
//
// addDX adds to dx, which then holds the gradient of a residual branch. A nil dw is a frozen weight. dx may be dy.
// The sum over rows is in the order of the rows, first within chunks of 64.
func RMSNormBackward(dx, dw, dy, x, w, rstd []float32, rows, d int, addDX bool) {
	if rows <= 0 || d <= 0 {
		return
	}
	dx, dy, x, w, rstd = dx[:rows*d], dy[:rows*d], x[:rows*d], w[:d], rstd[:rows]
	chunks := (rows + normChunk - 1) / normChunk
	var shares []float32
	if dw != nil {
		dw = dw[:d]
		s := borrow()
		defer s.giveBack()
		shares = s.part(0, chunks*d)
	}
	inParallel(chunks, rows*d, func(t int) {
		r0, r1 := t*normChunk, min(rows, (t+1)*normChunk)
		var share []float32
		if shares != nil {
			share = shares[t*d : (t+1)*d]
			clear(share)
		}
		rmsNormBackward(dx[r0*d:], share, dy[r0*d:], x[r0*d:], w, rstd[r0:], r1-r0, d, addDX)
	})
	for t := 0; t < chunks && shares != nil; t++ {
		add(dw, dw, shares[t*d:(t+1)*d])
	}
}

func rmsNormGeneric(y, rstd, x, w []float32, rows, d int, eps float32) {
	for r := range rows {
		xr, yr := x[r*d:(r+1)*d], y[r*d:(r+1)*d]
		sum := dot(xr, xr)
		rstd[r] = 1 / float32(math.Sqrt(float64(sum/float32(d)+eps)))
		for j, v := range xr {
			yr[j] = v * rstd[r] * w[j]
		}
	}
}

func rmsNormBackwardGeneric(dx, dw, dy, x, w, rstd []float32, rows, d int, addDX bool) {
	for r := range rows {
		dxr, dyr, xr := dx[r*d:(r+1)*d], dy[r*d:(r+1)*d], x[r*d:(r+1)*d]
		sum := float32(0)
		for j, v := range xr {
			sum += float32(dyr[j] * w[j] * v)
		}
		s := rstd[r]
		c := s * s * s * sum / float32(d)
		for j, v := range xr {
			if dw != nil {
				dw[j] += float32(dyr[j] * (v * s))
			}
			g := float32(dyr[j]*w[j]*s) - float32(c*v)
			if addDX {
				g += dxr[j]
			}
			dxr[j] = g
		}
	}
}
