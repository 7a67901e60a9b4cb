"""One iteration of the default experiment in PyTorch: sample, judge, train on pairs, evaluate. Prints its seconds as JSON.

    python3 docs/benchmarks/iteration.py [--trainer trl|loop] [--dtype float32|bfloat16] [--epochs 1]

It does what `dno bench --only iteration` does, as a user of transformers and TRL writes it: generate() in batches,
a verifier in Python, DPOTrainer (or a loop of one's own, with completions padded to the longest and the reference's
log-probabilities computed once), generate() again. Model and prompts are those that dno embeds. bfloat16 is autocast.
"""

import argparse
import json
import re
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

FILES = Path(__file__).resolve().parents[2] / "scripts/geometry/files"
SAMPLES, BATCH, MARGIN, MAX_TOKENS, RATE, BETA = 5, 16, 0.3, 80, 1.5e-4, 0.1

p = argparse.ArgumentParser()
p.add_argument("--trainer", choices=["trl", "loop"], default="trl")
p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
p.add_argument("--epochs", type=int, default=1)
p.add_argument("--rows", type=int, default=320, help="completions that generate() draws at once")
args = p.parse_args()
torch.manual_seed(0)
amp = lambda: torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bfloat16")


def read(name):
    return [json.loads(line) for line in open(FILES / name)]


train, held_out = read("train.jsonl")[:400], read("validation.jsonl") + read("test.jsonl")
tok = AutoTokenizer.from_pretrained(FILES / "model")
tok.padding_side = "left"
tok.pad_token = tok.eos_token
model = AutoModelForCausalLM.from_pretrained(FILES / "model", dtype=torch.float32)
initial = AutoModelForCausalLM.from_pretrained(FILES / "model", dtype=torch.float32).eval()


def chat(prompt):
    return tok.bos_token + prompt["prompt"] + "\n"


@torch.no_grad()
def generate(prompts, samples, sampled):
    """Texts and ids of the completions of each prompt."""
    model.eval()
    out = []
    step = max(1, args.rows // samples)
    for at in range(0, len(prompts), step):
        batch = tok([chat(p) for p in prompts[at : at + step]], return_tensors="pt", padding=True, add_special_tokens=False)
        with amp():
            ids = model.generate(
                **batch, max_new_tokens=MAX_TOKENS, do_sample=sampled, num_return_sequences=samples,
                **(dict(temperature=1.0, top_k=0, top_p=1.0) if sampled else {}),
                eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id,
            )[:, batch["input_ids"].shape[1] :]
        rows = []
        for row in ids.tolist():
            if tok.eos_token_id in row:
                row = row[: row.index(tok.eos_token_id) + 1]
            rows.append((tok.decode(row, skip_special_tokens=True), row))
        out += [rows[i : i + samples] for i in range(0, len(rows), samples)]
    return out


def score(prompt, text):
    """A right final answer wins; among wrong ones the more right steps."""
    right, last = 0, None
    for step in text.split(";"):
        found = re.search(r"(\d+)([+*-])(\d+)=(\d+)$", step.strip())
        if found:
            a, op, b, last = int(found[1]), found[2], int(found[3]), found[4]
            right += {"+": a + b, "-": a - b, "*": a * b}[op] == int(last)
    return (last == prompt["answer"], right)


def make_pairs(prompts, groups):
    """Chosen and rejected, where win rates over the other completions are MARGIN apart."""
    pairs = []
    for prompt, rows in zip(prompts, groups):
        s = [score(prompt, text) for text, _ in rows]
        for i in range(len(rows)):
            for j in range(len(rows)):
                others = [k for k in range(len(rows)) if k not in (i, j)]
                rate = lambda a: sum(0.5 if s[a] == s[k] else float(s[a] > s[k]) for k in others) / len(others)
                if rows[i][1] != rows[j][1] and s[i] > s[j] and rate(i) - rate(j) >= MARGIN:
                    pairs.append((prompt, rows[i], rows[j]))
    return pairs


def log_probs(of, prompts, completions):
    """Summed log-probability of each completion, sequences padded to the longest of the batch."""
    ids = [tok(chat(p), add_special_tokens=False)["input_ids"] for p in prompts]
    longest = max(len(a) + len(c) for a, c in zip(ids, completions))
    x = torch.full((len(ids), longest), tok.pad_token_id)
    mask = torch.zeros(len(ids), longest)
    for i, (a, c) in enumerate(zip(ids, completions)):
        x[i, : len(a) + len(c)] = torch.tensor(a + c)
        mask[i, len(a) : len(a) + len(c)] = 1
    with amp():
        logits = of(x, attention_mask=(torch.arange(longest)[None] < torch.tensor([len(a) + len(c) for a, c in zip(ids, completions)])[:, None]).long()).logits
    logp = -F.cross_entropy(logits[:, :-1].float().transpose(1, 2), x[:, 1:], reduction="none")
    return (logp * mask[:, 1:]).sum(-1)


def train_loop(pairs):
    model.train()
    opt = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)

    def both(of, batch):
        return log_probs(of, [p for p, _, _ in batch] * 2, [c[1] for _, c, _ in batch] + [r[1] for _, _, r in batch])

    with torch.no_grad():
        reference = torch.cat([torch.stack(both(initial, pairs[i : i + BATCH]).chunk(2)).T for i in range(0, len(pairs), BATCH)])
    for _ in range(args.epochs):
        order = torch.randperm(len(pairs)).tolist()
        for i in range(0, len(order), BATCH):
            at = order[i : i + BATCH]
            policy = torch.stack(both(model, [pairs[k] for k in at]).chunk(2)).T - reference[at]
            loss = -F.logsigmoid(BETA * (policy[:, 0] - policy[:, 1])).mean()
            opt.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()


def train_trl(pairs):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows = [dict(prompt=chat(p), chosen=c[0], rejected=r[0]) for p, c, r in pairs]
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, num_train_epochs=args.epochs, use_cpu=True,
        report_to=[], save_strategy="no", learning_rate=RATE, beta=BETA, disable_tqdm=True, logging_steps=1000,
        gradient_checkpointing=False, bf16=args.dtype == "bfloat16", precompute_ref_log_probs=True,
    )
    DPOTrainer(model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=tok).train()


def evaluate():
    right = []
    for sampled in (False, True):
        groups = generate(held_out, 1, sampled)
        right.append(sum(score(p, g[0][0])[0] for p, g in zip(held_out, groups)) / len(held_out))
    with torch.no_grad():  # KL to the policy before, over its own samples
        for at in range(0, len(held_out), 64):
            for of in (model, initial):
                log_probs(of, held_out[at : at + 64], [g[0][1] for g in groups[at : at + 64]])
    return right


seconds, start = {}, time.perf_counter()


def stage(name, value):
    global start
    now = time.perf_counter()
    seconds[name], start = round(now - start, 2), now
    return value


groups = stage("sample", generate(train, SAMPLES, True))
pairs = stage("judge", make_pairs(train, groups))
stage("train", (train_trl if args.trainer == "trl" else train_loop)(pairs))
greedy, at_one = stage("evaluate", evaluate())
print(json.dumps(dict(trainer=args.trainer, dtype=args.dtype, epochs=args.epochs, pairs=len(pairs), seconds=seconds,
                      total=round(sum(seconds.values()), 2), accuracy=round(greedy, 3), accuracy_sampled=round(at_one, 3))))
