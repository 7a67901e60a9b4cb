# Reads a checkpoint with transformers and completions with our log-probabilities; prints the largest
# difference of a summed log-probability, and fails where prompts are encoded differently.
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

checkpoint, records = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
worst, n = 0.0, 0
for line in open(records):
    r = json.loads(line)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": r["prompt"]}], tokenize=True, return_dict=False)
    with torch.no_grad():
        logits = model(torch.tensor([list(ids) + r["tokens"]])).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    total = sum(logp[len(ids) - 1 + i, t].item() for i, t in enumerate(r["tokens"]))
    assert tokenizer.decode(r["tokens"], skip_special_tokens=True) == r["text"], r
    worst, n = max(worst, abs(total - r["logprob"])), n + 1
print(json.dumps({"worst": worst, "completions": n}))
