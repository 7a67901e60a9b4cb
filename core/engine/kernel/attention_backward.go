package kernel

// blockQueries is the number of rows whose probabilities the backward pass holds at a time.
const blockQueries = 112

// AttentionBackward is the derivative of [Attention] for the gradient dout, with the probs it kept:
//
//	dp_ij = dout_i·v_j,  ds_ij = scale · p_ij · (dp_ij − Σ_l p_il·dp_il)
//	dq_i = Σ_j ds_ij·k_j,  dk_j = Σ_i ds_ij·q_i,  dv_j = Σ_i p_ij·dout_i
//
// It overwrites dq, dk and dv, which have the shapes of q, k and v and may not overlap anything. dk_j and dv_j are
// summed over the spans that see row j in their order, then over the heads that share it, then over rows.
func AttentionBackward(dq, dk, dv, dout, probs, q, k, v []float32, spans []Span, H, G, D int, scale float32) {
	S := len(spans)
	if S < 1 || H == 0 || D == 0 {
		return
	}
	inParallel(S*G, 3*attentionWork(spans, H, D), func(t int) {
		s, g := t/G, t%G
		if spans[s].Continues {
			return // belongs to the task of the span that it continues, whose rows it adds to
		}
		for first := s; s < S && (s == first || spans[s].Continues); s++ {
			a := newSequence(spans, s, H, G, D, scale)
			if a.T > 0 {
				a.backward(dq, dk, dv, dout, probs, q, k, v, g)
			}
			a.memory.giveBack()
		}
	})
}

// backward computes one key-value head and its query heads, a block of rows at a time.
func (a *sequence) backward(dq, dk, dv, dout, probs, q, k, v []float32, g int) {
	ldq, ldk, group := a.H*a.D, a.G*a.D, a.H/a.G
	vg, ld := a.whole(4, v, g)
	values := a.transpose(1, vg, ld)
	kg, ldw := a.whole(4, k, g)
	keys := a.transpose(0, kg, ldw)
	dkg, dvg := a.head(dk, a.G, g), a.head(dv, a.G, g)
	for j := range a.T {
		clear(dkg[j*ldk : j*ldk+a.D])
		clear(dvg[j*ldk : j*ldk+a.D])
	}
	ld = a.width()
	p, ds := a.memory.part(2, blockQueries*ld), a.memory.part(3, blockQueries*ld)
	blocks := (a.T + blockQueries - 1) / blockQueries
	for h := g * group; h < (g+1)*group; h++ {
		stats, qh, dqh, doh := a.stats(probs, h), a.head(q, a.H, h), a.head(dq, a.H, h), a.head(dout, a.H, h)
		for b := range blocks {
			b0, b1 := b*a.T/blocks, (b+1)*a.T/blocks
			panels := (b1 - b0 + tileRows() - 1) / tileRows()
			for z := range panels {
				r0, r1 := b0+z*(b1-b0)/panels, b0+(z+1)*(b1-b0)/panels
				pr, dsr, n := p[(r0-b0)*ld:], ds[(r0-b0)*ld:], a.P+r1
				a.timesPacked(r1-r0, n, qh[r0*ldq:], ldq, keys, pr, ld)
				a.timesPacked(r1-r0, n, doh[r0*ldq:], ldq, values, dsr, ld)
				softmaxBackwardRows(pr, dsr, ld, r1-r0, a.P+r0+1, a.P+b1, a.scale, stats[2*r0:])
				a.times(r1-r0, n, dsr, ld, 1, kg, ldw, dqh[r0*ldq:], ldq, false)
			}
			// add gives the keys j0 … j1−1, whose gradients begin at x and y, what the rows from i on contribute.
			add := func(j0, j1, i int, x, y []float32) {
				a.times(j1-j0, b1-i, ds[(i-b0)*ld+j0:], 1, ld, qh[i*ldq:], ldq, x, ldk, true)
				a.times(j1-j0, b1-i, p[(i-b0)*ld+j0:], 1, ld, doh[i*ldq:], ldq, y, ldk, true)
			}
			panels = (a.P + tileRows() - 1) / tileRows()
			for z := range panels {
				j0, j1 := z*a.P/panels, (z+1)*a.P/panels
				add(j0, j1, b0, a.before(dk, a.G, g)[j0*ldk:], a.before(dv, a.G, g)[j0*ldk:])
			}
			panels = (b1 + tileRows() - 1) / tileRows()
			for z := range panels {
				j0, j1 := z*b1/panels, (z+1)*b1/panels
				add(a.P+j0, a.P+j1, max(j0, b0) /* rows before see none of these keys */, dkg[j0*ldk:], dvg[j0*ldk:])
			}
		}
	}
}

// softmaxBackwardRowsGeneric turns rows of scores into probabilities, and rows of dp into ds, by the stats of the
// forward pass. Row i has n0+i entries; from there to width both become zero.
func softmaxBackwardRowsGeneric(p, dp []float32, ld, rows, n0, width int, scale float32, stats []float32) {
	for i := range rows {
		n := n0 + i
		pr, dr := p[i*ld:i*ld+n], dp[i*ld:i*ld+n]
		expShift(pr, pr, stats[2*i], scale)
		Scale(stats[2*i+1], pr)
		sum := dot(pr, dr)
		for j, x := range pr {
			dr[j] = x * ((dr[j] - sum) * scale)
		}
		clear(p[i*ld+n : i*ld+max(n, width)])
		clear(dp[i*ld+n : i*ld+max(n, width)])
	}
}
