package kernel

// blockQueries is the number of rows whose probabilities the backward pass holds at a time.
const blockQueries = 112

// AttentionBackward is the derivative of [Attention] for the gradient dout, with the probs it kept:
//
//	dp_ij = dout_i·v_j,  ds_ij = scale · p_ij · (dp_ij − Σ_l p_il·dp_il)
//	dq_i = Σ_j ds_ij·k_j,  dk_j = Σ_i ds_ij·q_i,  dv_j = Σ_i p_ij·dout_i
//
// It overwrites dq, dk and dv, which have the shapes of q, k and v and may not overlap anything. dk_j and dv_j are sums
// over the heads that share row j, in their order, of what each head sums over the spans that see the row in their order,
// then over rows.
func AttentionBackward(dq, dk, dv, dout, probs, q, k, v []float32, spans []Span, H, G, D int, scale float32, window int) {
	S := len(spans)
	if S < 1 || H == 0 || D == 0 {
		return
	}
	// However heads are shared out among tasks, each has sums of its own: the first of a group in dk and dv themselves.
	n, group := spans[S-1].To*G*D, H/G
	memory := borrow()
	defer memory.giveBack()
	dks, dvs := memory.part(0, (group-1)*n), memory.part(1, (group-1)*n)
	perTask := headsPerTask(S, H, G)
	tasks := H / perTask
	inParallel(S*tasks, 3*attentionWork(spans, H, D, window), func(t int) {
		s, h := t/tasks, t%tasks*perTask
		if spans[s].Behind > 0 {
			return // belongs to the task of the first span that it continues, whose rows it adds to
		}
		for first := s; s < S && (s == first || spans[s].Behind > 0); s++ {
			a := newSequence(spans, s, H, G, D, scale, window)
			if a.T > 0 {
				a.backward(dq, dk, dv, dks, dvs, dout, probs, q, k, v, h, h+perTask)
			}
			a.memory.giveBack()
		}
	})
	inParallel((n+grain-1)/grain, (group-1)*n, func(t int) {
		i, j := t*grain, min(n, (t+1)*grain)
		for at := 0; at < len(dks); at += n {
			add(dk[i:j], dk[i:j], dks[at+i:at+j])
			add(dv[i:j], dv[i:j], dvs[at+i:at+j])
		}
	})
}

// backward computes the query heads h0 … h1−1 of one key-value head, a block of rows at a time. dks and dvs are like dk
// and dv for each head of a group but the first.
func (a *sequence) backward(dq, dk, dv, dks, dvs, dout, probs, q, k, v []float32, h0, h1 int) {
	ldq, ldk, group := a.H*a.D, a.G*a.D, a.H/a.G
	g := h0 / group
	vg, ld := a.whole(4, v, g)
	values := a.transpose(1, vg, ld)
	kg, ldw := a.whole(4, k, g)
	keys := a.transpose(0, kg, ldw)
	ld = a.width(blockQueries)
	p, ds := a.memory.part(2, blockQueries*ld), a.memory.part(3, blockQueries*ld)
	blocks := (a.T + blockQueries - 1) / blockQueries
	for h := h0; h < h1; h++ {
		if i := h % group; i > 0 {
			n := a.N * ldk
			dk, dv = dks[(i-1)*n:i*n], dvs[(i-1)*n:i*n]
		}
		dkg, dvg := a.head(dk, a.G, g), a.head(dv, a.G, g)
		for j := range a.T {
			clear(dkg[j*ldk : j*ldk+a.D])
			clear(dvg[j*ldk : j*ldk+a.D])
		}
		stats, qh, dqh, doh := a.stats(probs, h), a.head(q, a.H, h), a.head(dq, a.H, h), a.head(dout, a.H, h)
		for b := range blocks {
			b0, b1 := b*a.T/blocks, (b+1)*a.T/blocks
			zero := a.firstPanel(b0) // the key of column 0
			panels := (b1 - b0 + tileRows() - 1) / tileRows()
			for z := range panels {
				r0, r1 := b0+z*(b1-b0)/panels, b0+(z+1)*(b1-b0)/panels
				j0 := a.firstPanel(r0)
				pr, dsr, n := p[(r0-b0)*ld:], ds[(r0-b0)*ld:], a.P+r1-j0
				a.timesPacked(r1-r0, j0, n, qh[r0*ldq:], ldq, keys, pr[j0-zero:], ld)
				a.timesPacked(r1-r0, j0, n, doh[r0*ldq:], ldq, values, dsr[j0-zero:], ld)
				a.hide(pr, ld, r0, r1, zero)
				a.hide(dsr, ld, r0, r1, zero)
				a.rows(r0, r1, ld, zero, func(r, rows, at, ld, seen, step int) {
					softmaxBackwardRows(pr[at:], dsr[at:], ld, rows, seen, step, seen+b1-r-1, a.scale, stats[2*r:])
				})
				a.times(r1-r0, n, dsr[j0-zero:], ld, 1, kg[j0*ldw:], ldw, dqh[r0*ldq:], ldq, false)
			}
			// add gives the n keys from k0 on, whose gradients begin at x and y, what the block's rows contribute.
			add := func(k0, n int, x, y []float32) {
				panels := (n + tileRows() - 1) / tileRows()
				for z := range panels {
					j0, j1 := max(z*n/panels, a.first(b0)-k0), (z+1)*n/panels
					i0, i1 := max(b0, k0+j0-a.P), min(b1, k0+j1-1-a.P+a.W) // the rows that see any of these keys
					if j0 >= j1 || i0 >= i1 {
						continue
					}
					at := (i0-b0)*ld + k0 + j0 - zero
					a.times(j1-j0, i1-i0, ds[at:], 1, ld, qh[i0*ldq:], ldq, x[j0*ldk:], ldk, true)
					a.times(j1-j0, i1-i0, p[at:], 1, ld, doh[i0*ldq:], ldq, y[j0*ldk:], ldk, true)
				}
			}
			k0 := 0
			for _, p := range a.pieces[a.eldest:] {
				at := (p.from*a.G + g) * a.D
				add(k0, p.n, dk[at:], dv[at:])
				k0 += p.n
			}
			add(a.P, b1, dkg, dvg)
		}
	}
}

// softmaxBackwardRowsGeneric turns rows of scores into probabilities, and rows of dp into ds, by the stats of the
// forward pass. Row i has n0+i·step entries; from there to width both become zero.
func softmaxBackwardRowsGeneric(p, dp []float32, ld, rows, n0, step, width int, scale float32, stats []float32) {
	for i := range rows {
		n := n0 + i*step
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
