package kernel

// Rope turns each head of each row by the angles of the row's position, in place (rotary embedding, halves form):
//
//	x[j], x[j+h] = x[j]·cos − x[j+h]·sin, x[j+h]·cos + x[j]·sin,  h = headDim/2, 0 ≤ j < h
//
// x is T×(heads·headDim) for T = len(pos); cos and sin are maxT×(headDim/2), row pos[t] is for row t. inverse turns
// back, which is the derivative. headDim is even.
//
// Source: Su et al. 2021 (arXiv 2104.09864), Eq. 34, with the pairing (j, j+h) of GPT-NeoX and Llama in Hugging Face.
func Rope(x []float32, pos []int32, cos, sin []float32, heads, headDim int, inverse bool) {
	half, width := headDim/2, heads*headDim
	if len(pos) == 0 || half == 0 || heads == 0 {
		return
	}
	x = x[:len(pos)*width]
	if len(x) < 2*grain {
		ropeRows(x, pos, cos, sin, width, half, inverse)
		return
	}
	step := max(1, grain/width)
	Parallel((len(pos)+step-1)/step, func(t int) {
		i, j := t*step, min(len(pos), (t+1)*step)
		ropeRows(x[i*width:j*width], pos[i:j], cos, sin, width, half, inverse)
	})
}

func ropeRows(x []float32, pos []int32, cos, sin []float32, width, half int, inverse bool) {
	for i, p := range pos {
		at := int(p) * half
		rotate(x[i*width:(i+1)*width], cos[at:at+half], sin[at:at+half], inverse)
	}
}

// rotateGeneric turns the heads of one row; len(x) is a multiple of 2·len(cos).
func rotateGeneric(x, cos, sin []float32, inverse bool) {
	h := len(cos)
	for ; len(x) > 0; x = x[2*h:] {
		for j, c := range cos {
			s := sin[j]
			if inverse {
				s = -s
			}
			p, q := x[j], x[j+h]
			x[j], x[j+h] = float32(p*c)-float32(q*s), float32(q*c)+float32(p*s)
		}
	}
}
