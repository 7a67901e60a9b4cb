"""Asks a server with OpenAI's official client: openai_client.py URL KEY MODEL."""
import asyncio
import sys

import openai

url, key, model = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
prompt = [{"role": "user", "content": "A box is 12 by 4 by 3 cm. Find its surface."}]
checked = []


def check(name, ok):
    assert ok, name
    checked.append(name)


check("models.list", [m.id for m in client.models.list()] == [model])
check("models.retrieve", client.models.retrieve(model).id == model)

chat = client.chat.completions.create(model=model, messages=prompt, n=3, seed=5, max_tokens=20, logprobs=True, top_logprobs=2, user="x")
check("chat", len(chat.choices) == 3 and chat.usage.prompt_tokens == 20 and chat.choices[0].message.role == "assistant")
check("chat logprobs", all(len(t.top_logprobs) == 2 and t.logprob <= 0 for t in chat.choices[0].logprobs.content))
check("chat text", bytes(b for t in chat.choices[0].logprobs.content for b in t.bytes).decode().startswith(chat.choices[0].message.content))
again = client.chat.completions.create(model=model, messages=prompt, n=3, seed=5, max_completion_tokens=20)
check("chat again", [c.message.content for c in again.choices] == [c.message.content for c in chat.choices])

texts = {0: "", 1: "", 2: ""}
usage = None
for event in client.chat.completions.create(
    model=model, messages=prompt, n=3, seed=5, max_tokens=20, stream=True, stream_options={"include_usage": True}
):
    for choice in event.choices:
        texts[choice.index] += choice.delta.content or ""
    usage = event.usage or usage
check("chat stream", list(texts.values()) == [c.message.content for c in chat.choices] and usage == chat.usage)

whole = client.chat.completions.create(model=model, messages=prompt, temperature=0)
with client.chat.completions.stream(model=model, messages=prompt, temperature=0) as stream:
    final = stream.get_final_completion().choices[0]
check("chat stream helper", final.message.content == whole.choices[0].message.content and final.finish_reason == "stop")

text = client.completions.create(model=model, prompt=["A box", "A room"], max_tokens=5, logprobs=3, echo=True, temperature=0, stop=";")
check("completions", [c.text[:5] for c in text.choices] == ["A box", "A roo"] and text.choices[0].logprobs.token_logprobs[0] is None)
ids = client.completions.create(model=model, prompt=[0, 67, 366], max_tokens=5, seed=1, extra_body={"top_k": 5, "return_token_ids": True})
check("completions of ids", len(ids.choices[0].token_ids) == ids.usage.completion_tokens and ids.choices[0].prompt_token_ids == [0, 67, 366])
parts = client.completions.create(model=model, prompt=[0, 67, 366], max_tokens=5, seed=1, extra_body={"top_k": 5}, stream=True)
check("completions stream", "".join(c.text for e in parts for c in e.choices) == ids.choices[0].text)
seed = client.completions.create(model=model, prompt="A box", max_tokens=30)
same = client.completions.create(model=model, prompt="A box", max_tokens=30, seed=seed.seed)
check("random seed", same.choices[0].text == seed.choices[0].text)


def refused(kind, name, **fields):
    try:
        client.chat.completions.create(**({"model": model, "messages": prompt} | fields))
    except kind as e:
        check(name, name in (e.param, e.code))
        return
    raise AssertionError(f"{name} was not refused")


refused(openai.BadRequestError, "tools", tools=[{"type": "function", "function": {"name": "f"}}])
refused(openai.BadRequestError, "response_format", response_format={"type": "json_object"})
refused(openai.NotFoundError, "model_not_found", model="gpt")
client = openai.OpenAI(base_url=url, api_key="another", max_retries=0)
refused(openai.AuthenticationError, "invalid_api_key")


async def together():
    many = openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)
    return await asyncio.gather(*[
        many.chat.completions.create(model=model, messages=prompt, seed=5, max_tokens=20) for _ in range(32)
    ])


check("async together", {c.choices[0].message.content for c in asyncio.run(together())} == {chat.choices[0].message.content})
print(f"openai {openai.__version__} for Python, ok: {', '.join(checked)}")
