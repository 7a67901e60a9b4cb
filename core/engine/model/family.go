package model

// Family is an architecture: the blocks that a layer is made of. What is a number stands in a [Config].
type Family uint8

const (
	Llama   Family = iota
	Mistral        // as Llama; all layers slide, or none
	Qwen3          // as Llama, with norms of heads
	Gemma3         // the text model
)

// family is what sets a family apart.
type family struct {
	modelType, class string // in config.json
	headNorms        bool   // each head of queries and of keys is normalised before it is turned
	postNorms        bool   // what a half of a layer adds is normalised before
	gemma            bool   // norms multiply by 1 + weight, the embedding is scaled by √C, the gated unit is GeGLU
}

var families = [...]family{
	Llama:   {modelType: "llama", class: "LlamaForCausalLM"},
	Mistral: {modelType: "mistral", class: "MistralForCausalLM"},
	Qwen3:   {modelType: "qwen3", class: "Qwen3ForCausalLM", headNorms: true},
	Gemma3:  {modelType: "gemma3_text", class: "Gemma3ForCausalLM", headNorms: true, postNorms: true, gemma: true},
}

// String is the model_type of a config.json.
func (f Family) String() string { return families[f].modelType }

// HeadNorms reports whether each head of queries and of keys is normalised.
func (f Family) HeadNorms() bool { return families[f].headNorms }

// PostNorms reports whether what each half of a layer adds is normalised.
func (f Family) PostNorms() bool { return families[f].postNorms }

// GELU reports whether the gated unit is GeGLU, else SwiGLU.
func (f Family) GELU() bool { return families[f].gemma }

// PlusOne reports whether a norm multiplies by 1 + its weight.
func (f Family) PlusOne() bool { return families[f].gemma }
