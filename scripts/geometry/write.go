package geometry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
)

// The seeds of the committed files; another seed draws other problems of the same parts.
const (
	corpusSeed = 1
	promptSeed = 2
	testSeed   = 3
)

// Demonstrations returns a corpus for supervised fine-tuning, a JSON line {"prompt","completion"}
// a problem: size problems of the part [Corpus], written with the given habits.
func Demonstrations(seed uint64, size int, habits Habits) ([]byte, error) {
	g := NewGenerator(corpusSeed+seed<<8, Corpus, habits)
	var out bytes.Buffer
	for range size {
		p := g.Next()
		if err := writeLine(&out, demonstration{p.Prompt, p.Worked()}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// PromptFiles returns the three sets of prompts and the teacher's worked answers for the first
// two, by file name. They are what the folder files holds.
func PromptFiles() (map[string][]byte, error) {
	var train, validation, test, teacher bytes.Buffer
	g := NewGenerator(promptSeed, Training, Habits{})
	for i := range TrainSize + ValidationSize {
		p := g.Next()
		out := &train
		id := fmt.Sprintf("train-%04d", i)
		if i >= TrainSize {
			out, id = &validation, fmt.Sprintf("validation-%04d", i-TrainSize)
		}
		if err := writePrompt(out, id, p); err != nil {
			return nil, err
		}
		if err := writeLine(&teacher, demonstration{p.Prompt, p.Worked()}); err != nil {
			return nil, err
		}
	}
	g = NewGenerator(testSeed, Testing, Habits{})
	for i := range TestSize {
		if err := writePrompt(&test, fmt.Sprintf("test-%04d", i), g.Next()); err != nil {
			return nil, err
		}
	}
	return map[string][]byte{
		"train.jsonl": train.Bytes(), "validation.jsonl": validation.Bytes(),
		"test.jsonl": test.Bytes(), "teacher.jsonl": teacher.Bytes(),
	}, nil
}

func writePrompt(out *bytes.Buffer, id string, p Problem) error {
	return writeLine(out, question{id, p.Prompt, strconv.Itoa(p.Answer), len(p.Steps)})
}

type demonstration struct {
	Prompt     string `json:"prompt"`
	Completion string `json:"completion"`
}

type question struct {
	ID     string `json:"id"`
	Prompt string `json:"prompt"`
	Answer string `json:"answer"`
	Steps  int    `json:"steps"` // in the worked solution
}

func writeLine(out *bytes.Buffer, record any) error {
	line, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("write a record: %w", err)
	}
	out.Write(line)
	return out.WriteByte('\n')
}

// ModelFiles returns what the embedded model's folder holds beside its weights: its shape and its
// tokenizer, by file name.
func ModelFiles() (map[string][]byte, error) {
	texts := []string{filler}
	g := NewGenerator(corpusSeed, Corpus, Habits{})
	for range 2000 {
		texts = append(texts, g.Next().Prompt)
	}
	tokenizer, err := Tokenizer(texts)
	if err != nil {
		return nil, err
	}
	var t struct {
		Model struct{ Vocab map[string]int }
	}
	if err := json.Unmarshal(tokenizer, &t); err != nil {
		return nil, fmt.Errorf("read the tokenizer back: %w", err)
	}
	out := map[string][]byte{"tokenizer.json": tokenizer}
	for name, v := range map[string]any{
		"config.json": map[string]any{
			"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama",
			"vocab_size": len(t.Model.Vocab), "hidden_size": 96, "num_hidden_layers": 3,
			"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 32, "intermediate_size": 320,
			"hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 256,
			"tie_word_embeddings": true, "attention_bias": false, "mlp_bias": false, "initializer_range": 0.04,
			"bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "float32",
		},
		"tokenizer_config.json": map[string]any{
			"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BOS, "eos_token": EOS,
			"add_bos_token": true, "clean_up_tokenization_spaces": false, "model_max_length": 256,
			"chat_template": "{% if bos_token %}{{ bos_token }}{% endif %}{% for message in messages %}{{ message['content'] }}\n{% endfor %}",
		},
	} {
		text, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		out[name] = append(text, '\n')
	}
	return out, nil
}
